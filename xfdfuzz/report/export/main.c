static void one_round(void)
{
	pid_t group = -1, pid;
	int status;

	sh->step = 0;
	memset(sh->tid, 0, sizeof(sh->tid));
	for (int task = 0; task < FIRST_TASKS; task++) {
		pid = fork();
		if (!pid) {
			setpgid(0, group < 0 ? 0 : group);
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			begin(task);
			_exit(0);
		}
		group = group < 0 ? pid : group;
		setpgid(pid, group);
	}
	for (int ms = 0; (pid = waitpid(-1, &status, WNOHANG)) >= 0; ) {
		if (pid)
			continue;
		if (ms++ == 20000)
			kill(-group, SIGKILL);
		usleep(1000);
	}
	kill(-group, SIGKILL);
}
