/*
 * amx-v1's reallocation request in one VM with one vCPU on one CPU: the scope of bench/peers/scope.py for SPIN.
 *
 * What the scope's ops do is reduced to the variables that a kernel function of the scope reads, two values each: the
 * only components that differ are TILECFG and TILEDATA, the only bit of XFD, XFD_ERR and the request is TILEDATA's.
 * Inlines bear the kernel's names.  What is the same in every state of the scope is
 * left out (CR4.OSXSAVE, XCOMP_BV, on which CPU); xfdfuzz's ideal machine has no counterpart here.
 *
 * -DREVIEW_A   amx-review-a instead of amx-v1
 * -DSITE=n     a WARN or a fault at this site violates the assertion (see below)
 * -DLIVE       the property of the request that stays
 * -DWIDE       count KVM_RUNs modulo 256, which nothing looks at: the same in more states, to measure the rate
 * -DTRACE      print every step: compile pan with -DPRINTF
 */

#ifndef SITE
#define SITE 0
#endif
#define WARN_SET_XFD       1	/* kvm_set_msr_common(): current's fpstate is not the guest's */
#define WARN_REALLOC       2	/* fpu_guest_realloc_fpstate(): a request on the way in */
#define FAULT_RETURN       3	/* XRSTORS faults in switch_fpu_return() */
#define FAULT_SWAP         4	/* in fpu_swap_kvm_fpstate() */
#define FAULT_REALLOC      5	/* in fpstate_realloc() */
#ifdef TRACE
#define NEVER(site) assert(SITE != site); met = met | 1 << site
#else
#define NEVER(site) assert(SITE != site)
#endif

/* whose fpstate */
#define HOST  0
#define GUEST 1

/* where the vCPU is, and the exit that is to be handled */
#define OUTSIDE  0
#define EXITED   1
#define IN_GUEST 2
#define NO_EXIT      0
#define EXIT_XSETBV  1
#define EXIT_WRMSR_0 2
#define EXIT_WRMSR_1 3

/* gfpu->xfd_err */
#define DISABLED  1
#define SAVED     2
#define SAVED_ERR 3

/* results, in the order of RESULTS in bench/peers/graph.py */
#define R_0       0
#define R_1       1
#define R_OK      2
#define R_EXIT    3
#define R_RESUME  4
#define R_EINVAL  5
#define R_EBUSY   6
#define R_ENOMEM  7
#define R_EEXIST  8
#define R_EINTR   9
#define R_EFAULT  10
#define R_REALLOC 11
#define R_GP      12
#define R_NM      13
#define R_UD      14
#define R_PANIC   15
#define R_VM0     16
#define R_VM1     17
#define R_V0      18

/* the VMM's process */
bit perm, locked;		/* guest_perm.state_perm: TILEDATA, FPU_GUEST_PERM_LOCKED */
bit user_mode = 1, need_load;	/* TIF_NEED_FPU_LOAD */
bit cur = HOST;			/* fpu->fpstate */
bit vm, vcpu;			/* exist */

/* the CPU */
bit owner = 1;			/* fpu_fpregs_owner_ctx is the thread, or NULL */
bit xfd_msr = 1, xfd_state = 1, xfd_err_msr;
bit reg_cfg, reg_data;		/* in use */

/* the host's fpstate and the guest's */
bit xfeatures[2];		/* TILEDATA has room */
bit xfd[2] = 1;			/* init_xfd */
bit cfg[2], data[2];		/* XSTATE_BV */

/* the vCPU */
byte mode = OUTSIDE, exit_pending = NO_EXIT, gfpu_xfd_err = 0;
bit cpuid, xcr0;		/* KVM_SET_CPUID2 gave it AMX and XFD; XCR0 has the tiles */
bit request;
bit passthrough;		/* xfd_no_write_intercept */
bit entered;			/* last_vmentry_cpu is not -1 */
bit run_over, complete;		/* vcpu_run() is left; complete_userspace_io */
bit gp;				/* #GP is pending */

bit fail;			/* the next allocation fails */
bit dead;

#ifdef WIDE
byte runs;
#define RAN runs++
#define NEVER_RAN runs = 0
#define ANY (runs < 256)	/* SPIN leaves out what nothing reads */
#else
#define RAN skip
#define NEVER_RAN skip
#define ANY true
#endif
#ifdef LIVE
bit progress;			/* the guest was entered, or KVM_RUN returned */
#endif

/* of one step: 0 between two (SPIN has no breadth-first search with hidden variables) */
byte ret, put_ret;
bit needed;

#ifdef TRACE
int op, from_a, from_b, met;
/* as state_of() in bench/peers/graph.py has it */
#define SYSTEM_A (perm + 2 * locked + 4 * user_mode + 8 * need_load + 16 * cur + 32 * vm + 64 * vcpu + 128 * owner + \
	256 * xfd_msr + 512 * xfd_state + 1024 * xfd_err_msr + 2048 * reg_cfg + 4096 * reg_data + 8192 * fail)
#define SYSTEM_B (xfeatures[HOST] + 2 * xfeatures[GUEST] + 4 * xfd[HOST] + 8 * xfd[GUEST] + 16 * cfg[HOST] + \
	32 * cfg[GUEST] + 64 * data[HOST] + 128 * data[GUEST] + 256 * mode + 1024 * exit_pending + \
	4096 * gfpu_xfd_err + 16384 * cpuid + 32768 * xcr0 + 65536 * request + 131072 * passthrough + \
	262144 * entered + 524288 * run_over + 1048576 * complete + 2097152 * gp)
#define BEGIN(n) printf("op %d\n", n); op = n; from_a = SYSTEM_A; from_b = SYSTEM_B
#define TOLD printf("step %d %d %d %d %d %d %d\n", from_a, from_b, op, ret, met, SYSTEM_A, SYSTEM_B); \
	op = 0; from_a = 0; from_b = 0; met = 0
#else
#define BEGIN(n) skip
#define TOLD skip
#endif

/* -- registers: fpu/xstate.h, fpu/context.h, fpu/core.c -- */

inline xfd_update_state(fps) {
	if
	:: xfd_state != xfd[fps] -> xfd_msr = xfd[fps]; xfd_state = xfd[fps]
	:: else
	fi
}

inline save_fpregs_to_fpstate() {
	cfg[cur] = reg_cfg;
	data[cur] = reg_data && !xfd_msr && xfeatures[cur]
}

inline restore_fpregs_from_fpstate(site) {
	xfd_update_state(cur);
	if
	:: data[cur] && xfd_msr -> NEVER(site); dead = 1
	:: else -> reg_cfg = cfg[cur]; reg_data = data[cur]
	fi
}

inline fpregs_restore_userregs(site) {
	if
	:: !owner -> restore_fpregs_from_fpstate(site); owner = 1
	:: else
	fi;
	need_load = 0
}

inline kernel_fpu_begin() {
	if
	:: !need_load -> need_load = 1; save_fpregs_to_fpstate()
	:: else
	fi;
	owner = 0
}

inline enter_kernel() {
	if
	:: !user_mode && need_load -> fpregs_restore_userregs(FAULT_RETURN)
	:: else
	fi;
	user_mode = 0
}

/* -- growth and swap: fpu/xstate.c, fpu/core.c -- */

inline xfd_enable_feature() {
	if
	:: !perm -> put_ret = R_EINVAL	/* -EPERM, which no program of the scope gets */
	:: perm && fail -> fail = 0; put_ret = R_EFAULT
	:: else ->
		if
		:: need_load -> fpregs_restore_userregs(FAULT_REALLOC)
		:: else
		fi;
		xfeatures[GUEST] = 1; xfd[GUEST] = 0; cfg[GUEST] = 0; data[GUEST] = 0;
		xfd_update_state(GUEST)
	fi
}

inline fpu_save_guest_xfd_err() {
	if
	:: gfpu_xfd_err == 0 && xfd_err_msr -> gfpu_xfd_err = SAVED_ERR; xfd_err_msr = 0
	:: gfpu_xfd_err == 0 && !xfd_err_msr -> gfpu_xfd_err = SAVED
	:: else
	fi
}

inline fpu_restore_guest_xfd_err() {
	if
	:: gfpu_xfd_err == SAVED_ERR -> xfd_err_msr = 1; gfpu_xfd_err = 0
	:: else
	fi
}

inline fpu_swap_kvm_fpstate(to) {
	if
	:: !need_load -> save_fpregs_to_fpstate()
	:: else
	fi;
	cur = to;
	restore_fpregs_from_fpstate(FAULT_SWAP);
	owner = 1;
	need_load = 0
}

inline kvm_load_guest_fpu() {
#ifndef REVIEW_A
	if
	:: request -> NEVER(WARN_REALLOC); request = 0
	:: else
	fi;
#endif
	fpu_swap_kvm_fpstate(GUEST)
}

inline kvm_put_guest_fpu() {
	put_ret = R_0;
	if
	:: request ->
#ifndef REVIEW_A
		request = 0;
#endif
		xfd_enable_feature()
	:: else
	fi;
	fpu_save_guest_xfd_err();
	fpu_swap_kvm_fpstate(HOST)
}

/* -- XFD and XCR0: kvm/x86.c -- */

inline kvm_check_guest_realloc_fpstate(value) {
	needed = 0;
	if
	:: xcr0 && !(value) && !xfeatures[GUEST] -> request = 1; needed = 1
	:: xcr0 && !(value) && xfeatures[GUEST] -> passthrough = 1
	:: else
	fi
}

inline kvm_set_xfd(value, host_initiated) {
#ifdef REVIEW_A
	kvm_check_guest_realloc_fpstate(value);
	needed = needed && !host_initiated;
	if
	:: needed -> complete = 1
	:: else ->
		xfd[GUEST] = value;
		if
		:: cur == GUEST -> xfd_update_state(GUEST)
		:: else
		fi
	fi
#else
	if
	:: cur != GUEST -> NEVER(WARN_SET_XFD)
	:: else
	fi;
	kvm_check_guest_realloc_fpstate(value);
	if
	:: needed -> complete = 1
	:: else -> xfd[cur] = value; xfd_update_state(cur)
	fi
#endif
}

inline kvm_set_msrs(value) {
	enter_kernel();
	if
	:: !cpuid -> ret = R_0
	:: else ->
		kvm_set_xfd(value, 1);
		ret = (needed -> R_0 : R_1)
	fi
}

inline emulated() {
	if
	:: needed -> run_over = 1; ret = R_EXIT
	:: else -> ret = R_RESUME
	fi
}

inline kvm_emulate_wrmsr(value) {
	if
	:: !cpuid -> gp = 1; ret = R_RESUME
	:: else -> kvm_set_xfd(value, 0); emulated()
	fi
}

inline kvm_emulate_xsetbv() {
	if
	:: !cpuid -> gp = 1; ret = R_RESUME
	:: else ->
		xcr0 = 1;
		kvm_check_guest_realloc_fpstate(xfd[GUEST]);
		if
		:: needed -> complete = 1
		:: else
		fi;
		emulated()
	fi
}

/* -- VM exit: kvm/x86.c -- */

inline vm_exit(reason) {
	exit_pending = reason;
	mode = EXITED;
	if
	:: passthrough -> xfd[cur] = xfd_msr; xfd_state = xfd_msr
	:: else
	fi;
	entered = 1;
	ret = R_EXIT
}

inline guest_wrmsr(value, reason) {
	if
	:: passthrough -> xfd_msr = value; ret = R_OK
	:: else -> vm_exit(reason)
	fi
}

/* a host that is dead is one state */
inline end_of_step() {
	if
	:: dead ->
		ret = R_PANIC;
		perm = 0; locked = 0; user_mode = 0; need_load = 0; cur = HOST; vm = 0; vcpu = 0;
		owner = 0; xfd_msr = 0; xfd_state = 0; xfd_err_msr = 0; reg_cfg = 0; reg_data = 0;
		xfeatures[GUEST] = 0; xfd[HOST] = 0; xfd[GUEST] = 0; cfg[HOST] = 0; cfg[GUEST] = 0; data[GUEST] = 0;
		mode = OUTSIDE; exit_pending = NO_EXIT; gfpu_xfd_err = 0; cpuid = 0; xcr0 = 0; request = 0;
		passthrough = 0; entered = 0; run_over = 0; complete = 0; gp = 0; fail = 0; NEVER_RAN;
#ifdef LIVE
		progress = 0;
#endif
	:: else
	fi;
	TOLD;
	ret = 0; put_ret = 0; needed = 0
}

#ifdef LIVE
#define WAIT progress = 0
#define PROGRESS progress = 1
#else
#define WAIT skip
#define PROGRESS skip
#endif
#define OP(n) BEGIN(n); WAIT

/* what may happen when: ops of the VMM outside KVM_RUN, of one that has a vCPU, and of the guest */
#define VMM (!dead && mode == OUTSIDE)
#define VMM_VCPU (VMM && vcpu)
#define INSN (mode == IN_GUEST)

active proctype system() {
end:	do
	:: d_step { VMM -> OP(0);	/* arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA) */
		enter_kernel();
		if
		:: perm -> ret = R_0
		:: !perm && locked -> ret = R_EBUSY
		:: else -> perm = 1; ret = R_0
		fi;
		end_of_step() }
	:: d_step { VMM -> OP(1);	/* KVM_CREATE_VM: a second one is out of scope, and not gone on from */
		if
		:: vm -> ret = R_VM1
		:: else -> enter_kernel(); vm = 1; ret = R_VM0
		fi;
		end_of_step() }
	:: d_step { VMM && vm -> OP(2);	/* KVM_CREATE_VCPU */
		enter_kernel();
		if
		:: fail -> fail = 0; ret = R_ENOMEM
		:: !fail && vcpu -> ret = R_EEXIST
		:: else -> vcpu = 1; locked = 1; xfd[GUEST] = 0; gfpu_xfd_err = DISABLED; ret = R_V0
		fi;
		end_of_step() }
	:: d_step { VMM_VCPU -> OP(3);	/* KVM_SET_CPUID2 with AMX and XFD */
		enter_kernel();
		if
		:: entered || !perm -> ret = R_EINVAL
		:: else -> cpuid = 1; gfpu_xfd_err = 0; ret = R_0
		fi;
		end_of_step() }
	:: d_step { VMM_VCPU -> OP(4);	/* KVM_SET_XCRS with the tiles */
		enter_kernel();
		if
		:: !cpuid -> ret = R_EINVAL
		:: else -> xcr0 = 1; ret = R_0
		fi;
		end_of_step() }
	:: d_step { VMM_VCPU -> OP(5); kvm_set_msrs(0); end_of_step() }	/* KVM_SET_MSRS, IA32_XFD */
	:: d_step { VMM_VCPU -> OP(6); kvm_set_msrs(1); end_of_step() }
	:: d_step { VMM_VCPU && ANY -> OP(7);	/* KVM_RUN */
		enter_kernel();
		RAN;
		mode = EXITED;
		run_over = 0;
		kvm_load_guest_fpu();
		if
		:: complete -> complete = 0
		:: else
		fi;
		ret = R_OK;
		end_of_step() }
	:: d_step { mode == EXITED && !run_over && exit_pending == NO_EXIT -> OP(8);	/* vmenter */
		ret = (gp -> R_GP : R_OK);
		gp = 0;
		if
		:: need_load -> fpregs_restore_userregs(FAULT_RETURN)
		:: else
		fi;
		fpu_restore_guest_xfd_err();
		mode = IN_GUEST;
		PROGRESS;
		end_of_step() }
	:: d_step { mode == EXITED && exit_pending != NO_EXIT -> OP(9);	/* handle */
		if
		:: exit_pending == EXIT_XSETBV -> kvm_emulate_xsetbv()
		:: exit_pending == EXIT_WRMSR_0 -> kvm_emulate_wrmsr(0)
		:: else -> kvm_emulate_wrmsr(1)
		fi;
		exit_pending = NO_EXIT;
		end_of_step() }
	:: d_step { INSN -> OP(10); vm_exit(NO_EXIT); end_of_step() }			/* interrupt */
	:: d_step { INSN -> OP(11); vm_exit(NO_EXIT); kernel_fpu_begin(); end_of_step() }	/* with a softirq */
	:: d_step { mode == EXITED && exit_pending == NO_EXIT -> OP(12);	/* KVM_RUN returns */
		kvm_put_guest_fpu();
		if
		:: !run_over -> ret = R_EINTR
		:: run_over && put_ret != R_0 -> ret = put_ret
		:: else -> ret = R_REALLOC
		fi;
		mode = OUTSIDE;
		PROGRESS;
		end_of_step() }
	:: d_step { INSN -> OP(13); vm_exit(EXIT_XSETBV); end_of_step() }		/* xsetbv with the tiles */
	:: d_step { INSN -> OP(14); guest_wrmsr(0, EXIT_WRMSR_0); end_of_step() }	/* wrmsr of IA32_XFD */
	:: d_step { INSN -> OP(15); guest_wrmsr(1, EXIT_WRMSR_1); end_of_step() }
	:: d_step { INSN -> OP(16);	/* ldtilecfg */
		if
		:: !xcr0 -> ret = R_UD
		:: else -> reg_cfg = 1; reg_data = 0; ret = R_OK
		fi;
		end_of_step() }
	:: d_step { INSN -> OP(17);	/* tileload */
		if
		:: !xcr0 -> ret = R_UD
		:: xcr0 && xfd_msr -> xfd_err_msr = 1; ret = R_NM
		:: xcr0 && !xfd_msr && !reg_cfg -> ret = R_UD
		:: else -> reg_data = 1; ret = R_OK
		fi;
		end_of_step() }
	:: d_step { INSN -> OP(18);	/* tilerelease */
		if
		:: !xcr0 -> ret = R_UD
		:: else -> reg_cfg = 0; reg_data = 0; ret = R_OK
		fi;
		end_of_step() }
	:: d_step { !dead && mode != IN_GUEST -> OP(19); user_mode = 0; kernel_fpu_begin(); ret = R_OK; end_of_step() }
	:: d_step { !dead -> OP(20); fail = 1; ret = R_OK; end_of_step() }	/* host fail_alloc(1) */
	od
}

#ifdef LIVE
/* a request is not for ever set while there is memory and KVM_RUN returns, or the guest is entered, again and again */
ltl cleared { !(<>[](request && !fail) && []<>progress) }
#endif
