static void one_round(void)
{
/*@ if alone */
	int status, ms = 0;
	pid_t pid = fork();

	if (!pid) {
		setpgid(0, 0);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		begin(0);
		_exit(0);
	}
	while (!waitpid(pid, &status, WNOHANG)) {
		if (ms++ == 20000)
			kill(pid, SIGKILL);
		usleep(1000);
	}
/*@ else */
	int status, ms = 0;
	pid_t group = -1, pid;

	sh->step = 0;
	memset(sh->tid, 0, sizeof(sh->tid));
/*@ if meets */
	memset(sh->waits, 0, sizeof(sh->waits));
/*@ end */
	for (int task = 0; task < FIRST_TASKS; task++) {
		pid = fork();
		if (!pid) {
			setpgid(0, group < 0 ? 0 : group);
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			begin(task);
			_exit(0);
		}
		sh->tid[task] = pid;
		group = group < 0 ? pid : group;
		setpgid(pid, group);
	}
	while ((pid = waitpid(-1, &status, WNOHANG)) >= 0) {
		if (pid)
			continue;
		if (ms++ == 20000 || sh->skip[0])
			kill(-group, SIGKILL);
		usleep(1000);
	}
	kill(-group, SIGKILL);
/*@ end */
}
