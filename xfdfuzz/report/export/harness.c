//@ always
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

//@ __cpuid_count
#include <cpuid.h>
//@ cpu_set_t clone
#include <sched.h>
//@ sigjmp_buf
#include <setjmp.h>
//@ timespec timer_t
#include <time.h>
//@ include_ptrace ptrace
#include <sys/ptrace.h>
#include <sys/uio.h>

//@ include_pthread pthread_t
#include <pthread.h>

//@ include_futex FUTEX_WAIT FUTEX_WAKE
#include <linux/futex.h>

//@ ucontext_t REG_RIP
#include <ucontext.h>

//@ include_kvm KVM_RUN KVM_CREATE_VM KVM_CHECK_EXTENSION KVM_GET_SUPPORTED_CPUID KVM_GET_DEVICE_ATTR
#include <linux/kvm.h>
#ifndef KVM_CAP_XSAVE2 /* headers older than 5.17 */
#define KVM_CAP_XSAVE2 208
#define KVM_GET_XSAVE2 _IOR(KVMIO, 0xcf, struct kvm_xsave)
#endif

//@ NT_X86_XSTATE NT_PRFPREG
enum { NT_PRFPREG = 2, NT_X86_XSTATE = 0x202 };

//@ ksft_print_header
/*@ if plain */
/* KTAP on stdout, as kselftest.h writes it; exit code 0: pass, 1: fail, 4: skipped. */
static int ksft_count, ksft_failed;

#define ksft_print_header() printf("TAP version 13\n")
#define ksft_set_plan(n) printf("1..%d\n", (int)(n))
#define ksft_print_msg(...) (printf("# "), printf(__VA_ARGS__))
#define ksft_test_result(good, ...) \
	(ksft_failed += !(good), \
	 printf((good) ? "ok %d " : "not ok %d ", ++ksft_count), printf(__VA_ARGS__))
/*@ if images */
#define ksft_test_result_skip(...) (printf("ok %d # SKIP ", ++ksft_count), printf(__VA_ARGS__))
/*@ end */
#define ksft_exit_skip(...) (printf("1..0 # SKIP "), printf(__VA_ARGS__), exit(4))
#define ksft_exit_fail_msg(...) (printf("Bail out! "), printf(__VA_ARGS__), exit(1))
#define ksft_finished() exit(ksft_failed ? 1 : 0)
/*@ end */
/*@ if x86 */
#include "../kselftest.h"
/*@ end */
/*@ if kvm */
#include "kvm_util.h"
/*@ end */
//@ always defines
/*@ defines @*/

//@ X87 SSE AVX PKRU XTILECFG XTILEDATA MXCSR
/* State components, and the bits of XCR0; MXCSR, which is none, goes with them. */
enum { X87, SSE, AVX, PKRU = 9, XTILECFG = 17, XTILEDATA = 18, MXCSR = 21 };
/*@ if kvm */
#undef BIT
/*@ end */
#define BIT(n) (1ULL << (n))

//@
#define ARCH_GET_XCOMP_SUPP		0x1021
//@
#define ARCH_GET_XCOMP_PERM		0x1022
//@
#define ARCH_REQ_XCOMP_PERM		0x1023
//@
#define ARCH_GET_XCOMP_GUEST_PERM	0x1024
//@
#define ARCH_REQ_XCOMP_GUEST_PERM	0x1025
//@
#define MSR_IA32_XFD		0x1c4
//@
#define MSR_IA32_XFD_ERR	0x1c5
//@
#define MSR_IA32_XSS		0xda0
//@
/*
 * Register contents.  T(0, 1) is what task 0 loads as its number 1, V(0, 1) what
 * vCPU 0 does: no two of them, and no two components, hold the same bytes.
 */
#define T(task, n) (((task) + 1) << 3 | (n))
#define V(vcpu, n) ((16 + (vcpu)) << 3 | (n))
#define INIT 0			/* the initial configuration */
#define LINUX_PKRU_TOKEN 1	/* the PKRU that Linux starts programs with */
#define ZERO 2			/* x87 or MXCSR without a bit, even of those that are set initially */
#define RESERVED 3		/* MXCSR with reserved bits */

//@ sample_offset
/* Of each component a sample is looked at: of registers the last one, ST(0), tile 0. */
static int sample_size(int component)
{
	switch (component) {
	case X87: return 10;
	case SSE: case AVX: case 3: return 16;
	case 4: case 5: return 8;
	case 6: return 32;
	case PKRU: case MXCSR: return 4;
	case XTILEDATA: return 1024;
	default: return 64;
	}
}

static void put_sample(unsigned char *to, int component, int token)
{
	unsigned char word[8] = { token, component, 0x58, 0x46, 0x44, 0x7a, ~token, 0x80 | component };
	uint32_t pkru = token == LINUX_PKRU_TOKEN ? 0x55555554 : (uint32_t)token << 2;
	uint32_t mxcsr = token == RESERVED ? 0xffffffff : 0x1f80U | (token & 0x3f) | (uint32_t)token >> 6 << 13;

	memset(to, 0, sample_size(component));
	if (component == PKRU) {
		memcpy(to, &pkru, 4);
	} else if (component == MXCSR && token != ZERO) {
		memcpy(to, &mxcsr, 4);
	} else if (token == ZERO) {
		return;
	} else if (token && component == XTILECFG) {
		to[0] = 1;		/* palette 1: eight tiles of 16 rows of 64 bytes */
		for (int i = 0; i < 8; i++) {
			to[16 + 2 * i] = i < 7 ? 64 : 4 * (1 + token / 16);
			to[48 + i] = i < 7 ? 16 : 1 + token % 16;
		}
	} else if (token && component != 4) {
		for (int i = 0; i < sample_size(component); i++)
			to[i] = word[i % 8];
		if (component == X87)
			memcpy(to + 8, "\x01\x40", 2);
	}
}

//@
/* Whose contents these are: a token, or -1. */
static int find_token(const unsigned char *sample, int component)
{
	unsigned char want[1024];

	for (int token = 0; token < 20 * 8; token++) {
		put_sample(want, component, token);
		if (!memcmp(sample, want, sample_size(component)))
			return token;
	}
	return -1;
}

//@
static const char *describe(char *to, size_t size, int token)
{
	if (token <= 0)
		snprintf(to, size, "%s", token ? "bytes of nobody's" : "the initial configuration");
	else if (token < 8)
		snprintf(to, size, "%s", token == ZERO ? "zeros" : "none of a task's or guest's");
	else
		snprintf(to, size, "%s%d's %d", token < 128 ? "task " : "vCPU ",
			 token < 128 ? token / 8 - 1 : token / 8 - 16, token % 8);
	return to;
}

//@ sh
/* What all processes of the test see. */
static struct shared {
/*@ if tasks */
	unsigned int step;		/* whose turn it is follows from this */
	int tid[8];			/* of the tasks */
/*@ end */
/*@ if meets */
	unsigned int waits[8];		/* for the end of which step each task waits, plus 1 */
/*@ end */
	char skip[128];
/*@ if images */
	bool lacking[CHECKS];		/* the machine has nothing of what the check is about */
/*@ end */
	struct { unsigned int seen, wrong; char got[96]; } check[CHECKS];
} *sh;

//@ skip_test
/* The machine cannot show it: nothing is wrong with the kernel. */
static void __attribute__((format(printf, 1, 2), noreturn)) skip_test(const char *why, ...)
{
	va_list args;

	va_start(args, why);
	vsnprintf(sh->skip, sizeof(sh->skip), why, args);
	va_end(args);
	_exit(0);
}

//@ verdict
/* A check of op n has come out good or not; the message says what was seen. */
static void __attribute__((format(printf, 3, 4))) verdict(int n, bool good, const char *seen, ...)
{
	va_list args;

	sh->check[n].seen++;
	if (good)
		return;
	if (!sh->check[n].wrong++) {
		va_start(args, seen);
		vsnprintf(sh->check[n].got, sizeof(sh->check[n].got), seen, args);
		va_end(args);
	}
}

//@
/* Returns are counts, or -errno. */
static bool check_ret(int n, long got, long want)
{
	if (got < 0 && got != want)
		verdict(n, false, "-%s", strerrorname_np(-got));
	else
		verdict(n, got == want, "%ld", got);
	return got == want;
}

//@
/* A file descriptor. */
static void check_new(int n, long got)
{
	check_ret(n, got < 0 ? got : 0, 0);
}

//@
static void check_value(int n, long got, long want, unsigned long long value, unsigned long long wanted)
{
	if (got != want)
		check_ret(n, got, want);
	else
		verdict(n, value == wanted, "%#llx", value);
}

//@
/* What this kernel supports for tasks: XCR0. */
static unsigned long long host_features(void)
{
	unsigned int eax, edx;

	asm volatile(".byte 0x0f, 0x01, 0xd0" /* xgetbv */ : "=a"(eax), "=d"(edx) : "c"(0));
	return (unsigned long long)edx << 32 | eax;
}

//@
/* Of masks of components only those count that this machine has, and that the test is about. */
static void check_mask(int n, long got, long want, unsigned long long value, unsigned long long wanted,
		       unsigned long long there)
{
	if (got != want)
		check_ret(n, got, want);
	else
		verdict(n, !((value ^ wanted) & there & FEATURES), "%#llx", value);
}

//@
/* A processor may say that more is in use than was written. */
static void check_in_use(int n, unsigned long long value, unsigned long long wanted)
{
	verdict(n, !(wanted & ~value & FEATURES & host_features()), "%#llx", value);
}

//@
/* How an instruction in user mode ended: 0, or -signal. */
static bool check_signal(int n, long got, int signal)
{
	verdict(n, got == -signal, "signal %ld", -got);
	return got == -signal;
}

//@
static bool check_content(int n, int component, const void *sample, int token)
{
	unsigned char want[1024];
	char text[64] = "";
	bool good;

	put_sample(want, component, token);
	good = !memcmp(sample, want, sample_size(component));
	if (!good)
		describe(text, sizeof(text), find_token(sample, component));
	verdict(n, good, component == MXCSR ? "MXCSR (%d) holds %s" : "component %d holds %s", component, text);
	return good;
}

//@ content
struct content { int component, token; };
//@
/* Where the sample of a component lies in an image. */
static unsigned int offset_in(const unsigned char *image, int component)
{
	static const unsigned short last[] = { [AVX] = 15 * 16, [5] = 7 * 8, [6] = 15 * 32, [7] = 15 * 64 };
	unsigned int eax, ebx, ecx, edx, sample = component < 8 ? last[component] : 0;
/*@ if compacted */
	unsigned long long xcomp_bv;
	unsigned int at = 576;

/*@ else */

	(void)image;
/*@ end */
	if (component == MXCSR)
		return 24;
	if (component < 2)
		return component ? 160 + 15 * 16 : 32;
/*@ if compacted */
	memcpy(&xcomp_bv, image + 520, 8);
	for (int i = 2; xcomp_bv >> 63 && i <= component; i++) {
		if (!(xcomp_bv & BIT(i)))
			continue;
		__cpuid_count(0xd, i, eax, ebx, ecx, edx);
		at = ecx & 2 ? (at + 63) & ~63U : at;	/* aligned to 64 bytes */
		if (i == component)
			return at + sample;
		at += eax;
	}
/*@ end */
	__cpuid_count(0xd, component, eax, ebx, ecx, edx);
	return ebx + sample;
}

//@
/*
 * Contents of an image, of the components in BIT()s of mask: those in the list, up to
 * one of component -1, and the initial configuration in all others, which an image
 * may also leave out.
 */
static void check_image(int n, const unsigned char *image, unsigned long long mask,
			const struct content *list)
{
	unsigned long long bv, known = mask & FEATURES & host_features();
	const struct content *found;
	unsigned char init[1024];

	memcpy(&bv, image + 512, 8);
	for (int i = 0; i <= XTILEDATA; i++) {
		if (!(known & BIT(i)))
			continue;
		for (found = list; found->component >= 0 && found->component != i; found++)
			;
		put_sample(init, i, INIT);
		if (!check_content(n, i, bv & BIT(i) ? image + offset_in(image, i) : init,
				   found->component < 0 ? INIT : found->token))
			return;
	}
	for (found = list; found->component >= 0; found++)
		if (found->component == MXCSR)
			check_content(n, MXCSR, image + 24, found->token);
	sh->lacking[n] = !sh->check[n].seen;
}

//@
static unsigned char image_room[0x10000] __attribute__((aligned(64)));
//@
struct image {
	unsigned long long bv, xcomp_bv;
	int token;
	const struct content *named;	/* up to one of component -1 */
	bool reserved;
};

/* An image of which every component in bv holds the token, but for those that are named. */
static void fill_image(unsigned char *to, size_t size, const struct image *want)
{
	static unsigned char at[0x10000];

	memset(at, 0, sizeof(at));
	memcpy(at, "\x7f\x03", 2);			/* FCW */
	put_sample(at + 24, MXCSR, INIT);
	memcpy(at + 512, &want->bv, 8);
	memcpy(at + 520, &want->xcomp_bv, 8);
	at[528] = want->reserved;
	for (int i = 0; i <= XTILEDATA; i++)
		if (want->bv & BIT(i) & ~BIT(10) & ~BIT(11) & ~BIT(12))
			put_sample(at + offset_in(at, i), i, want->token);
	for (const struct content *one = want->named; one && one->component >= 0; one++) {
		put_sample(at + offset_in(at, one->component), one->component, one->token);
		if (one->component == X87 && one->token == ZERO)
			memset(at, 0, 2);
	}
	memcpy(to, at, size);
}

//@
/* arch_prctl() returns -errno here, as all that follow. */
static long xcomp(int code, unsigned long long argument)
{
	return syscall(SYS_arch_prctl, code, argument) ? -errno : 0;
}

//@
#define BAD_POINTER ((void *)8)

//@ USER_INSN
/* An instruction of user mode; where it faults, the handler goes on behind it, at R15. */
#define USER_INSN(insn, ...) \
	asm volatile("lea 1f(%%rip), %%r15; .byte " insn "; 1:" : : __VA_ARGS__ : "r15", "memory")
//@
static __thread sigjmp_buf *volatile fault;		/* where a bad sigreturn goes on */
static __thread volatile int in_user, fault_signal;

static void on_fault(int signal, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)info;
	fault_signal = signal;
	if (in_user)
		uc->uc_mcontext.gregs[REG_RIP] = uc->uc_mcontext.gregs[REG_R15];
	else if (fault)
		siglongjmp(*fault, signal);
	else
		_exit(1);
}
//@
/* 0, or -signal.  The registers are what the instruction left: the handler returns. */
static long try_user(void (*insn)(void *), void *p)
{
	fault_signal = 0;
	in_user = 1;
	insn(p);
	in_user = 0;
	return -fault_signal;
}
//@
static void catch_faults(void)
{
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };

	sigaction(SIGILL, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
}
//@
static void ldtilecfg(void *p)		/* ldtilecfg (%rdi) */
{
	USER_INSN("0xc4, 0xe2, 0x78, 0x49, 0x07", "D"(p));
}

//@
static void tileload(void *p)		/* tileloadd (%rdi,%rsi,1),%tmm0 */
{
	USER_INSN("0xc4, 0xe2, 0x7b, 0x4b, 0x04, 0x37", "D"(p), "S"(64L));
}

//@
static void tilestore(void *p)		/* tilestored %tmm0,(%rdi,%rsi,1) */
{
	USER_INSN("0xc4, 0xe2, 0x7a, 0x4b, 0x04, 0x37", "D"(p), "S"(64L));
}

//@
static void sttilecfg(void *p)		/* sttilecfg (%rdi) */
{
	USER_INSN("0xc4, 0xe2, 0x79, 0x49, 0x07", "D"(p));
}

//@
static void tilerelease(void *p)	/* tilerelease */
{
	USER_INSN("0xc4, 0xe2, 0x78, 0x49, 0xc0", "D"(p));
}

//@
static void wrpkru(void *p)		/* wrpkru */
{
	USER_INSN("0x0f, 0x01, 0xef", "a"(*(uint32_t *)p), "c"(0), "d"(0));
}

//@
static void fld(void *p)		/* fninit; fldt (%rdi) */
{
	USER_INSN("0xdb, 0xe3, 0xdb, 0x2f", "D"(p));
}

//@
static void fldcw(void *p)		/* fninit; fldcw (%rdi) */
{
	USER_INSN("0xdb, 0xe3, 0xd9, 0x2f", "D"(p));
}

//@
static void fninit(void *p)		/* fninit */
{
	USER_INSN("0xdb, 0xe3", "D"(p));
}

//@
static void ldmxcsr(void *p)		/* ldmxcsr (%rdi) */
{
	USER_INSN("0x0f, 0xae, 0x17", "D"(p));
}
//@
static void stmxcsr(void *p)		/* stmxcsr (%rdi) */
{
	USER_INSN("0x0f, 0xae, 0x1f", "D"(p));
}
//@
static void movups(void *p)		/* movups (%rdi),%xmm15 */
{
	USER_INSN("0x44, 0x0f, 0x10, 0x3f", "D"(p));
}

//@
static void vinsertf128(void *p)	/* vinsertf128 $1,(%rdi),%ymm15,%ymm15 */
{
	USER_INSN("0xc4, 0x63, 0x05, 0x18, 0x3f, 0x01", "D"(p));
}

//@
static void vextractf128(void *p)	/* vextractf128 $1,%ymm15,(%rdi) */
{
	USER_INSN("0xc4, 0x63, 0x7d, 0x19, 0x3f, 0x01", "D"(p));
}

//@
static unsigned long long xsave_mask;

//@
static void xsavec_user(void *p)	/* xsavec64 (%rdi) */
{
	USER_INSN("0x48, 0x0f, 0xc7, 0x27", "D"(p), "a"((uint32_t)xsave_mask), "d"((uint32_t)(xsave_mask >> 32)));
}

//@
static void xsave_user(void *p)		/* xsave64 (%rdi) */
{
	USER_INSN("0x48, 0x0f, 0xae, 0x27", "D"(p), "a"((uint32_t)xsave_mask), "d"((uint32_t)(xsave_mask >> 32)));
}

//@
static unsigned long long xrstor_mask;

static void xrstor_user(void *p)	/* xrstor64 (%rdi) */
{
	USER_INSN("0x48, 0x0f, 0xae, 0x2f", "D"(p), "a"((uint32_t)xrstor_mask), "d"((uint32_t)(xrstor_mask >> 32)));
}

//@
static unsigned long long xgetbv(unsigned int index)
{
	unsigned int eax, edx;

	asm volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(eax), "=d"(edx) : "c"(index));
	return (unsigned long long)edx << 32 | eax;
}

//@
static long altstack(size_t size)
{
	/* the handler itself may use more than the kernel's frame: there is room below */
	char *room = mmap(NULL, size + 0x10000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	stack_t stack = { .ss_sp = room + 0x10000, .ss_size = size, .ss_flags = size ? 0 : SS_DISABLE };

	return sigaltstack(&stack, NULL) ? -errno : 0;
}

//@
/* Which task this is, and how its turn comes and ends. */
static int me(void)
{
	int tid = syscall(SYS_gettid);

	for (int i = 0; i < 8; i++)
		if (sh->tid[i] == tid)
			return i;
	return -1;
}

//@
static void am(int task)
{
	__atomic_store_n(&sh->tid[task], syscall(SYS_gettid), __ATOMIC_RELEASE);
}

//@
static void pass_turn(unsigned int after)
{
	__atomic_store_n(&sh->step, after + 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, &sh->step, FUTEX_WAKE, 1 << 20, NULL, NULL, 0);
}

//@
static void arrive(unsigned int now)
{
	int task = me();

	if (task >= 0)
		__atomic_store_n(&sh->waits[task], now + 1, __ATOMIC_RELEASE);
}

//@
/* A step begins when those are there that are to meet it; some come late, and a round goes on without them. */
static void await_rivals(unsigned int now)
{
	for (int task = 0; task < 8; task++)
		for (int i = 0; rivals[now] >> task & 1 && i < 100; i++) {
			if (__atomic_load_n(&sh->waits[task], __ATOMIC_ACQUIRE) == now + 1)
				break;
			usleep(100);
		}
}

//@ left_check left_signal
static __thread int left_check, left_signal;	/* how a signal handler was left */
//@ STAY LEAVE JUMP CHILD
/*
 * A task does the steps that are its own, in its turn, until all are done or its signal
 * handler returns; returns the step that said so.
 */
enum { STAY, LEAVE, JUMP, CHILD };

static __thread unsigned int left_by;
static __thread int left_how;

static void play(void)
{
	int waited = 0;

	for (;;) {
		unsigned int now = __atomic_load_n(&sh->step, __ATOMIC_ACQUIRE);

		if (now >= STEPS)
			return;
		if (actor[now] != me()) {
			struct timespec second = { 1, 0 };

/*@ if meets */
			arrive(now);
			if (meet(now))
				continue;
/*@ end */
			if (syscall(SYS_futex, &sh->step, FUTEX_WAIT, now, &second, NULL, 0) &&
			    errno == ETIMEDOUT && ++waited > 20)
				_exit(1);
			continue;
		}
/*@ if meets */
		await_rivals(now);
/*@ end */
		left_how = step(now);
		left_by = now;
		if (left_how == LEAVE || left_how == JUMP)
			return;
		if (left_how == STAY)
			pass_turn(now);
		waited = 0;
	}
}

//@
static __thread void **frame_pointer;		/* where sigreturn finds the frame's image */
//@
/* A signal: its handler plays on, until the program leaves it. */
static __thread unsigned char *frame;		/* the XSAVE image in the handler's frame */
static __thread volatile unsigned int raised_by;
static void on_signal(int signal, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)signal;
	(void)info;
	frame = (unsigned char *)uc->uc_mcontext.fpregs;
/*@ if copies */
	frame_pointer = (void **)&uc->uc_mcontext.fpregs;
/*@ end */
	look_at_frame(raised_by);
	pass_turn(raised_by);
	play();
	if (left_how == JUMP)
		siglongjmp(*fault, -1);
}

static int raise_signal(unsigned int now)
{
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
	sigjmp_buf here, *outer = fault;
	unsigned char *outer_frame = frame;	/* of the handler that this interrupts */
/*@ if copies */
	void **outer_pointer = frame_pointer;
/*@ end */
	int how;

	sigaction(SIGUSR1, &action, NULL);
	raised_by = now;
	left_by = now;
	how = sigsetjmp(here, 1);
	fault = &here;
	if (!how)
		syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1);
	fault = outer;
	frame = outer_frame;
/*@ if copies */
	frame_pointer = outer_pointer;
/*@ end */
	return how < 0 ? 0 : -how;
}

//@
/* What stands around the image: FP_XSTATE_MAGIC1 and 2, and the features. */
static void check_frame(int n, unsigned long long features, bool magic1, bool magic2)
{
	uint32_t first, second = 0, size;
	unsigned long long got;

	memcpy(&first, frame + 464, 4);
	memcpy(&got, frame + 472, 8);
	memcpy(&size, frame + 480, 4);
	if (first == 0x46505853)
		memcpy(&second, frame + size, 4);
	verdict(n, (first == 0x46505853) == magic1 && (second == 0x46505845) == magic2 &&
		!((got ^ features) & FEATURES & host_features()),
		"magics %#x %#x, features %#llx", first, second, got);
}
//@
static long fork_task(int task)
{
	pid_t pid = fork();

	if (!pid)
		am(task);
	while (pid > 0 && !__atomic_load_n(&sh->tid[task], __ATOMIC_ACQUIRE))
		usleep(100);
	return pid < 0 ? -errno : pid;
}

//@
static void *thread_main(void *task)
{
	am((long)task);
	play();
	return NULL;
}

static long thread_task(long task)
{
	pthread_t thread;
	int error = pthread_create(&thread, NULL, thread_main, (void *)task);

	while (!error && !__atomic_load_n(&sh->tid[task], __ATOMIC_ACQUIRE))
		usleep(100);
	return -error;
}

//@
static int vm_main(void *task)
{
	am((long)task);
	play();
	_exit(0);
}

/* A process that shares memory only. */
static long vm_task(long task)
{
	char *stack = mmap(NULL, 0x40000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int pid = clone(vm_main, stack + 0x40000, CLONE_VM | SIGCHLD, (void *)task);

	while (pid > 0 && !__atomic_load_n(&sh->tid[task], __ATOMIC_ACQUIRE))
		usleep(100);
	return pid < 0 ? -errno : pid;
}

//@
/* This program again, which goes on behind this step. */
static void exec_task(int n, unsigned int now)
{
	char words[4][16];
	char *argv[] = { (char *)"repro", (char *)"--resume", words[0], words[1], words[2], NULL };

	snprintf(words[0], sizeof(words[0]), "%d", shared_fd);
	snprintf(words[1], sizeof(words[1]), "%u", now);
	snprintf(words[2], sizeof(words[2]), "%d", n);
	execv("/proc/self/exe", argv);
	check_ret(n, -errno, 0);
}
//@
/* The CPUs of a test are the first ones that this process may use. */
static void pin(int task, int cpu)
{
	static cpu_set_t allowed;
	cpu_set_t one;
	int found = 0;

	if (!CPU_COUNT(&allowed))
		sched_getaffinity(0, sizeof(allowed), &allowed);
	CPU_ZERO(&one);
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &allowed) && found++ == cpu)
			CPU_SET(i, &one);
	sched_setaffinity(task < 0 ? 0 : sh->tid[task], sizeof(one), &one);
}

//@
static void pause_ms(long ms)
{
	struct timespec time = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&time, NULL);
}

//@
/* Timers wake a rival in the midst of what it is to meet. */
static void pause_at_random(void)
{
	struct timespec time = { 0, rand() % 150000 };

	nanosleep(&time, NULL);
}

//@
static bool stop_task(int task)
{
	int tid = sh->tid[task], status;

	return !ptrace(PTRACE_SEIZE, tid, 0, 0) && !ptrace(PTRACE_INTERRUPT, tid, 0, 0) &&
	       waitpid(tid, &status, __WALL) == tid;
}

static long regset(int request, int task, long type, unsigned char *image, size_t size)
{
	struct iovec io = { image, size };
	long ret;

	if (!stop_task(task))
		skip_test("cannot trace task %d: %s", task, strerror(errno));
	ret = ptrace(request, sh->tid[task], (void *)type, &io) ? -errno : 0;
	ptrace(PTRACE_DETACH, sh->tid[task], 0, 0);
	return ret;
}
//@
static long get_regset(int task, long type, unsigned char *image, size_t size)
{
	return regset(PTRACE_GETREGSET, task, type, image, size);
}
//@
static long write_regset(int task, const struct image *want, size_t size)
{
	unsigned int eax, ebx, ecx, edx;

	__cpuid_count(0xd, 0, eax, ebx, ecx, edx);
	fill_image(image_room, sizeof(image_room), want);
	return regset(PTRACE_SETREGSET, task, NT_X86_XSTATE, image_room, size ? size : ebx);
}
//@
static long write_fpregs(int task, int x87, int sse, int mxcsr, size_t size)
{
	struct content named[] = { { X87, x87 }, { SSE, sse }, { MXCSR, mxcsr }, { -1, 0 } };

	fill_image(image_room, sizeof(image_room), &(struct image){ .named = named });
	return regset(PTRACE_SETREGSET, task, NT_PRFPREG, image_room, size);
}
//@
/* As the msr driver reads it; -1 without one. */
static int host_msr(int cpu, unsigned int index, unsigned long long *value)
{
	char name[64];
	int fd, ret;

	snprintf(name, sizeof(name), "/dev/cpu/%d/msr", cpu);
	fd = open(name, O_RDONLY);
	ret = fd >= 0 && pread(fd, value, 8, index) == 8 ? 0 : -1;
	if (fd >= 0)
		close(fd);
	return ret;
}

//@
/* A buffer of so many bytes; behind them lies 0xcc, or if guarded nothing is mapped. */
static unsigned char *buffer_of(size_t size, bool guarded)
{
	size_t whole = 0x10000;
	unsigned char *at = mmap(NULL, whole + 0x1000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memset(at, 0xcc, whole);
	mprotect(at + whole, 0x1000, PROT_NONE);
	return guarded ? at + whole - size : at;
}

//@
static bool overrun(const unsigned char *at, size_t size)
{
	for (size_t i = size; i < 0x10000; i++)
		if (at[i] != 0xcc)
			return true;
	return false;
}

//@
static int kvm_fd = -1;
//@ vms
static struct { int fd; unsigned char *memory; } vms[3];
//@ vcpus
static struct { int fd, vm; bool begun, osxsave, ts; struct kvm_run *run; } vcpus[3];
//@
static long do_ioctl(int fd, unsigned long command, void *argument)
{
	long ret = ioctl(fd, command, argument);

	return ret < 0 ? -errno : ret;
}

//@
static void open_kvm(void)
{
/*@ if kvm */
	kvm_fd = open_kvm_dev_path_or_exit();
/*@ else */
	kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm_fd < 0)
		ksft_exit_skip("/dev/kvm: %s\n", strerror(errno));
	if (ioctl(kvm_fd, KVM_GET_API_VERSION, 0) != 12)
		ksft_exit_skip("/dev/kvm: an API of another version\n");
/*@ end */
}

//@ MEMORY BLOCK GDT IDT HANDLERS PML4 STACK RESULTS
/*
 * A guest's memory: a block for each vCPU.  Its faults go to handlers that write the
 * vector to where R14 points, and go on at R15; neither needs an IRET.
 */
enum {
	BLOCK = 0x400000, MEMORY = 4 * BLOCK,
	GDT = 0x1000, IDT = 0x2000, HANDLERS = 0x3000, PML4 = 0x4000, PDPT = 0x5000, PD = 0x6000,
	STACK = 0x8000, RESULTS = 0x9000, CODE = 0x10000,
};

//@
static long create_vm(int vm)
{
	struct kvm_userspace_memory_region slot = { .memory_size = MEMORY };

/*@ if kvm */
	vms[vm].fd = vm_create_barebones()->fd;
/*@ else */
	vms[vm].fd = ioctl(kvm_fd, KVM_CREATE_VM, 0);
	if (vms[vm].fd < 0)
		return -errno;
/*@ end */
	vms[vm].memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	slot.userspace_addr = (unsigned long)vms[vm].memory;
	ioctl(vms[vm].fd, KVM_SET_TSS_ADDR, 0xfffbd000UL);
	return do_ioctl(vms[vm].fd, KVM_SET_USER_MEMORY_REGION, &slot);
}

//@
static long create_vcpu(int vm, int vcpu, unsigned long id, bool osxsave)
{
	int fd = ioctl(vms[vm].fd, KVM_CREATE_VCPU, id);
	void *run;

	if (fd < 0)
		return -errno;
	run = mmap(NULL, ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (run == MAP_FAILED)
		return -errno;
	vcpus[vcpu].fd = fd;
	vcpus[vcpu].vm = vm;
	vcpus[vcpu].run = run;
	vcpus[vcpu].begun = false;
	vcpus[vcpu].osxsave = osxsave;
	return fd;
}

//@
static long close_vm(int vm)
{
	int size = ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);

	for (int i = 0; i < 3; i++) {
		if (!vcpus[i].run || vcpus[i].vm != vm)
			continue;
		munmap(vcpus[i].run, size);
		close(vcpus[i].fd);
		vcpus[i].run = NULL;
	}
	return close(vms[vm].fd) ? -errno : 0;
}

//@
#define MAX_ENTRIES 256

static struct kvm_cpuid2 *supported_cpuid(void)
{
	static union { struct kvm_cpuid2 list; char bytes[sizeof(struct kvm_cpuid2) +
					MAX_ENTRIES * sizeof(struct kvm_cpuid_entry2)]; } cpuid;

	memset(&cpuid, 0, sizeof(cpuid));
	cpuid.list.nent = MAX_ENTRIES - 2;
	if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, &cpuid))
		skip_test("KVM_GET_SUPPORTED_CPUID: %s", strerror(errno));
	return &cpuid.list;
}

static struct kvm_cpuid_entry2 *find_leaf(struct kvm_cpuid2 *cpuid, uint32_t leaf, uint32_t index)
{
	for (uint32_t i = 0; i < cpuid->nent; i++)
		if (cpuid->entries[i].function == leaf && cpuid->entries[i].index == index)
			return &cpuid->entries[i];
	return NULL;
}

//@
/* Leaf 0xd, EDX:EAX. */
static unsigned long long cpuid_xcr0(struct kvm_cpuid2 *cpuid)
{
	struct kvm_cpuid_entry2 *leaf = find_leaf(cpuid, 0xd, 0);

	return leaf ? (unsigned long long)leaf->edx << 32 | leaf->eax : 0;
}

//@
struct cpuid {
	unsigned long long xcr0;
	bool xfd, amx;
/*@ if other */
	unsigned long long xss, leaves;
	unsigned int other;
	bool no_xsave, no_xsaves;
/*@ end */
};

/* What KVM supports, with these features instead of its own. */
static long set_cpuid(int vcpu, const struct cpuid *want)
{
	struct kvm_cpuid2 *cpuid = supported_cpuid();
/*@ if other */
	unsigned long long leaves = (want->leaves ? want->leaves : want->xcr0 | want->xss) | BIT(0) | BIT(1);
/*@ else */
	unsigned long long leaves = want->xcr0 | BIT(0) | BIT(1);
/*@ end */
	const uint32_t amx = 1U << 22 | 1U << 24 | 1U << 25;
	struct kvm_cpuid_entry2 *at;
	uint32_t kept = 0;

	for (int i = 17; i <= 18; i++) {	/* KVM leaves them out without permission */
		if (!(leaves & BIT(i)) || find_leaf(cpuid, 0xd, i))
			continue;
		at = &cpuid->entries[cpuid->nent++];
		*at = (struct kvm_cpuid_entry2) { .function = 0xd, .index = i,
						  .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX };
		__cpuid_count(0xd, i, at->eax, at->ebx, at->ecx, at->edx);
	}
	for (uint32_t i = 0; i < cpuid->nent; i++) {
		at = &cpuid->entries[i];
		if (at->function == 0xd && at->index > 1 && !(leaves & BIT(at->index)))
			continue;
		if (at->function == 7 && !at->index)
			at->edx = want->amx ? at->edx | amx : at->edx & ~amx;
/*@ if other */
		if (at->function == 0xd && want->no_xsave)
			continue;
		if (at->function == 1 && want->no_xsave)
			at->ecx &= ~(1U << 26);
		if (at->function == 0x80000002)
			at->eax += want->other;
/*@ end */
		if (at->function == 0xd && at->index == 0) {
			at->eax = want->xcr0;
			at->edx = want->xcr0 >> 32;
		} else if (at->function == 0xd && at->index == 1) {
			at->eax = want->xfd ? at->eax | 1U << 4 : at->eax & ~(1U << 4);
			at->ecx = at->edx = 0;
/*@ if other */
			at->eax = want->no_xsaves ? at->eax & ~(1U << 3) : at->eax;
			at->ecx = want->xss;
			at->edx = want->xss >> 32;
/*@ end */
		}
		cpuid->entries[kept++] = *at;
	}
	cpuid->nent = kept;
	return do_ioctl(vcpus[vcpu].fd, KVM_SET_CPUID2, cpuid);
}

//@
static long set_supported_cpuid(int vcpu, unsigned long long *xcr0)
{
	struct kvm_cpuid2 *cpuid = supported_cpuid();

	*xcr0 = cpuid_xcr0(cpuid);
	return do_ioctl(vcpus[vcpu].fd, KVM_SET_CPUID2, cpuid);
}

//@
static long get_cpuid(int vcpu, unsigned long long *xcr0)
{
	struct kvm_cpuid2 *cpuid = supported_cpuid();
	long ret;

	cpuid->nent = MAX_ENTRIES;
	ret = do_ioctl(vcpus[vcpu].fd, KVM_GET_CPUID2, cpuid);
	*xcr0 = ret ? 0 : cpuid_xcr0(cpuid);
	return ret;
}

//@
static long has_attr(unsigned int group, unsigned long long attribute)
{
	struct kvm_device_attr attr = { .group = group, .attr = attribute };

	return do_ioctl(kvm_fd, KVM_HAS_DEVICE_ATTR, &attr);
}

//@
static long read_attr(unsigned int group, unsigned long long attribute, void *to)
{
	struct kvm_device_attr attr = { .group = group, .attr = attribute, .addr = (unsigned long)to };

	return do_ioctl(kvm_fd, KVM_GET_DEVICE_ATTR, &attr);
}

//@
/* What KVM can give to guests, whatever is permitted now. */
static unsigned long long guest_features(void)
{
	unsigned long long features = 0;
	struct kvm_device_attr attr = { .addr = (unsigned long)&features };

	if (ioctl(kvm_fd, KVM_GET_DEVICE_ATTR, &attr))
		return BIT(X87) | BIT(SSE) | BIT(AVX);	/* older than 5.17 */
	return features;
}

//@
static long has_msr(unsigned int index)
{
	static union { struct kvm_msr_list list; char bytes[0x4000]; } msrs;

	msrs.list.nmsrs = 0x800;
	if (ioctl(kvm_fd, KVM_GET_MSR_INDEX_LIST, &msrs))
		return -errno;
	for (uint32_t i = 0; i < msrs.list.nmsrs; i++)
		if (msrs.list.indices[i] == index)
			return 1;
	return 0;
}

//@
static long set_xcrs(int vcpu, unsigned long long value, unsigned int xcr, unsigned int nr, unsigned int flags)
{
	struct kvm_xcrs xcrs = { .nr_xcrs = nr, .flags = flags, .xcrs = { { .xcr = xcr, .value = value } } };

	return do_ioctl(vcpus[vcpu].fd, KVM_SET_XCRS, &xcrs);
}

//@
static long get_xcr0(int vcpu, unsigned long long *value)
{
	struct kvm_xcrs xcrs = { 0 };
	long ret = do_ioctl(vcpus[vcpu].fd, KVM_GET_XCRS, &xcrs);

	*value = xcrs.xcrs[0].value;
	return ret;
}

//@ msr_room
static union { struct kvm_msrs list; char bytes[0x800]; } msr_room;

//@
/* How many of the entries KVM took. */
static long set_msrs(int vcpu, int count, const struct kvm_msr_entry *entries)
{
	memset(&msr_room, 0, sizeof(msr_room));
	msr_room.list.nmsrs = count;
	for (int i = 0; i < count; i++)
		msr_room.list.entries[i] = entries[i];
	return do_ioctl(vcpus[vcpu].fd, KVM_SET_MSRS, &msr_room);
}

//@
static long get_msr(int vcpu, unsigned int index, unsigned long long *value)
{
	long ret;

	memset(&msr_room, 0, sizeof(msr_room));
	msr_room.list.nmsrs = 1;
	msr_room.list.entries[0].index = index;
	ret = do_ioctl(vcpus[vcpu].fd, KVM_GET_MSRS, &msr_room);
	*value = msr_room.list.entries[0].data;
	return ret;
}

//@
static long set_xsave(int vcpu, const struct image *want)
{
	fill_image(image_room, sizeof(image_room), want);
	return do_ioctl(vcpus[vcpu].fd, KVM_SET_XSAVE, image_room);
}
//@
/* From a buffer of its own. */
static long set_xsave_from(int vcpu, unsigned char *buffer, size_t size, const struct image *want)
{
	fill_image(buffer, size, want);
	return do_ioctl(vcpus[vcpu].fd, KVM_SET_XSAVE, buffer);
}
//@
/* Into image_room, which is large enough for whatever there is. */
static long get_xsave(int vcpu, unsigned long command)
{
	memset(image_room, 0xcc, sizeof(image_room));
	return do_ioctl(vcpus[vcpu].fd, command, image_room);
}

//@
static long set_fpu(int vcpu, int x87, int sse, int mxcsr)
{
	struct kvm_fpu fpu = { .fcw = x87 == ZERO ? 0 : 0x37f };

	put_sample(fpu.fpr[0], X87, x87);
	put_sample(fpu.xmm[15], SSE, sse);
	put_sample((unsigned char *)&fpu.mxcsr, MXCSR, mxcsr);
	return do_ioctl(vcpus[vcpu].fd, KVM_SET_FPU, &fpu);
}

//@
static long get_fpu(int vcpu, struct kvm_fpu *fpu)
{
	return do_ioctl(vcpus[vcpu].fd, KVM_GET_FPU, fpu);
}

//@
static void *guest_memory(int vcpu, unsigned long at)
{
	return vms[vcpus[vcpu].vm].memory + at;
}

//@
/* Flat 64-bit mode, ring 0, with the tables that load_guest() wrote. */
static long set_sregs(int vcpu, bool osxsave, bool ts)
{
	struct kvm_segment code = { .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1,
				    .limit = 0xffffffff };
	struct kvm_segment data = { .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1,
				    .limit = 0xffffffff };
	unsigned long base = vcpu * BLOCK;
	struct kvm_sregs sregs;

	if (ioctl(vcpus[vcpu].fd, KVM_GET_SREGS, &sregs))
		return -errno;
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.gdt = (struct kvm_dtable) { .base = base + GDT, .limit = 23 };
	sregs.idt = (struct kvm_dtable) { .base = base + IDT, .limit = 32 * 16 - 1 };
	sregs.cr0 = 0x80000031 | (ts ? 1 << 3 : 0);	/* PG, NE, ET, PE */
	sregs.cr3 = base + PML4;
	sregs.cr4 = 0x620 | (osxsave ? 1 << 18 : 0);	/* OSXMMEXCPT, OSFXSR, PAE */
	sregs.efer = 0x500;		/* LMA, LME */
	return do_ioctl(vcpus[vcpu].fd, KVM_SET_SREGS, &sregs);
}

//@
static long set_regs(int vcpu)
{
	struct kvm_regs regs;

	if (ioctl(vcpus[vcpu].fd, KVM_GET_REGS, &regs))
		return -errno;
	return do_ioctl(vcpus[vcpu].fd, KVM_SET_REGS, &regs);
}

//@
static void jump_to(int vcpu, unsigned long rip)
{
	struct kvm_regs regs = { .rip = rip, .rsp = vcpu * BLOCK + STACK, .rflags = 2 };

	ioctl(vcpus[vcpu].fd, KVM_SET_REGS, &regs);
}

//@
#define U32(n) (n) & 0xff, (n) >> 8 & 0xff, (n) >> 16 & 0xff, (unsigned int)(n) >> 24

//@
struct result { uint8_t status, vector; uint64_t value; };	/* status 1: done, 2: faulted */

static struct result *guest_result(int vcpu, int nr)
{
	return (struct result *)guest_memory(vcpu, vcpu * BLOCK + RESULTS + 16 * nr);
}

//@
static void load_tables(int vcpu)
{
	unsigned long base = vcpu * BLOCK;
	uint64_t *gdt = guest_memory(vcpu, base + GDT), *pd = guest_memory(vcpu, base + PD);

	gdt[1] = 0x00af9b000000ffff;	/* code */
	gdt[2] = 0x00cf93000000ffff;	/* data */
	*(uint64_t *)guest_memory(vcpu, base + PML4) = (base + PDPT) | 3;
	*(uint64_t *)guest_memory(vcpu, base + PDPT) = (base + PD) | 3;
	for (int i = 0; i < MEMORY >> 21; i++)
		pd[i] = (uint64_t)i << 21 | 0x83;	/* pages of 2 MiB, one to one */
	for (int vector = 0; vector < 32; vector++) {
		uint32_t at = base + HANDLERS + vector * 32, stack = base + STACK;
		const unsigned char code[] = {
			0x41, 0xc6, 0x46, 0x01, vector,	/* movb $vector,0x1(%r14) */
			0x41, 0xc6, 0x06, 0x02,		/* movb $0x2,(%r14) */
			0xbc, U32(stack),		/* mov $stack,%esp */
			0x41, 0xff, 0xe7,		/* jmp *%r15 */
		};
		uint64_t gate[] = { (at & 0xffff) | 8 << 16 | 0x8e00ULL << 32 | (uint64_t)(at >> 16) << 48, 0 };

		memcpy(guest_memory(vcpu, at), code, sizeof(code));
		memcpy(guest_memory(vcpu, base + IDT + vector * 16), gate, sizeof(gate));
	}
}

//@
static void begin_guest(int vcpu)
{
	if (vcpus[vcpu].begun)
		return;
	vcpus[vcpu].begun = true;
	load_tables(vcpu);
	load_guest(vcpu);
	if (set_sregs(vcpu, vcpus[vcpu].osxsave, vcpus[vcpu].ts))
		set_sregs(vcpu, false, vcpus[vcpu].ts);		/* its CPUID has no XSAVE */
	jump_to(vcpu, vcpu * BLOCK + CODE);
}

//@ EXIT_OUT EXIT_HLT EXIT_DONE
/* How KVM_RUN ends: -errno, or one of these. */
enum { EXIT_OUT = 1001, EXIT_HLT, EXIT_DONE, EXIT_OTHER };

static long run_guest(int vcpu)
{
	struct kvm_run *run;

	begin_guest(vcpu);
	run = vcpus[vcpu].run;
	if (ioctl(vcpus[vcpu].fd, KVM_RUN, 0) < 0)
		return -errno;
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		return run->io.port == 0x10 ? EXIT_OUT : EXIT_DONE;
	case KVM_EXIT_HLT:
		return EXIT_HLT;
	case KVM_EXIT_INTERNAL_ERROR:
		skip_test("this KVM emulates the guest, and does not know one of its instructions");
	default:
		return EXIT_OTHER + run->exit_reason;
	}
}

//@
/* KVM_RUN that does not enter the guest. */
static long run_never(int vcpu)
{
	long ret;

	begin_guest(vcpu);
	vcpus[vcpu].run->immediate_exit = 1;
	ret = run_guest(vcpu);
	vcpus[vcpu].run->immediate_exit = 0;
	return ret;
}

//@
static void on_alarm(int signal)
{
	(void)signal;
}

/* KVM_RUN that a timer's signal ends, when the guest waits for the byte at flag. */
static long run_until_signal(int vcpu, int last, unsigned long flag)
{
	struct itimerspec period = { { 0, 5000000 }, { 0, 5000000 } };
	struct sigaction action = { .sa_handler = on_alarm };
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGALRM };
	timer_t timer;
	long ret;

	event._sigev_un._tid = syscall(SYS_gettid);
	sigaction(SIGALRM, &action, NULL);
	timer_create(CLOCK_MONOTONIC, &event, &timer);
	timer_settime(timer, 0, &period, NULL);
	do {
		ret = run_guest(vcpu);
	} while (ret == -EINTR && last >= 0 && !guest_result(vcpu, last)->status);
	timer_delete(timer);
	*(unsigned char *)guest_memory(vcpu, flag) = 1;
	return ret;
}

//@
/* What became of an instruction of the guest: done (vector -1), or a fault. */
static bool check_guest(int n, int vcpu, int nr, int vector)
{
	struct result *got = guest_result(vcpu, nr);
	bool good = vector < 0 ? got->status == 1 : got->status == 2 && got->vector == vector;

	if (got->status == 2)
		verdict(n, good, "exception %d", got->vector);
	else
		verdict(n, good, got->status ? "no fault" : "not reached");
	return good;
}

//@
/* An instruction that reads a number. */
static void check_read(int n, int vcpu, int nr, unsigned long long want)
{
	unsigned long long got = guest_result(vcpu, nr)->value;

	if (guest_result(vcpu, nr)->status != 1)
		check_guest(n, vcpu, nr, -1);
	else
		verdict(n, got == want, "%#llx", got);
}

//@
static void check_read_in_use(int n, int vcpu, int nr, unsigned long long want)
{
	if (check_guest(n, vcpu, nr, -1))
		check_in_use(n, guest_result(vcpu, nr)->value, want);
}

//@
/* The handler changes the image in its frame. */
static void write_frame(const struct image *want)
{
	uint32_t size;

	memcpy(&size, frame + 480, 4);		/* xstate_size */
	fill_image(image_room, sizeof(image_room), want);
	memcpy(frame + 512, image_room + 512, 64);
	memcpy(frame + 24, image_room + 24, 4);		/* MXCSR */
	for (int i = 0; i <= XTILEDATA; i++) {
		const struct content *one = want->named;
		unsigned int at = offset_in(image_room, i);

		while (one && one->component >= 0 && one->component != i)
			one++;
		if ((want->bv & BIT(i) || (one && one->component == i)) && at + sample_size(i) <= size)
			memcpy(frame + at, image_room + at, sample_size(i));
	}
}

//@
/* The guest goes through the same code once more. */
static void restart(int vcpu, unsigned long rip, int first, int last)
{
	begin_guest(vcpu);
	for (int nr = first; nr <= last; nr++)
		guest_result(vcpu, nr)->status = 0;
	jump_to(vcpu, rip);
}

//@
/* The legacy region of FXSAVE, which has no header. */
static void check_legacy(int n, const unsigned char *image, int x87, int sse, int mxcsr)
{
	if (check_content(n, X87, image + 32, x87) && check_content(n, SSE, image + 160 + 15 * 16, sse))
		check_content(n, MXCSR, image + 24, mxcsr);
}

//@
/* Moves a task from CPU to CPU while it does what it does. */
static pid_t start_mover(int task, int cpus)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int i = 0;; i++) {
		pin(task, i % cpus);
		pause_at_random();
	}
}

//@
static double clock_now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}
//@
/* Memory of zeros with the first bytes of the image, by which the handler comes back. */
static void copy_frame(size_t size)
{
	static unsigned char copy[0x10000] __attribute__((aligned(64)));

	for (size_t i = 0; i < size; i++)
		copy[i] = frame[i];
	frame = copy;
	*frame_pointer = copy;
}
//@
/* What surrounds the image in a frame (asm/sigcontext.h, struct _fpx_sw_bytes). */
struct sw_bytes { uint32_t magic1, extended_size; uint64_t xfeatures; uint32_t xstate_size; };

static struct sw_bytes *sw_reserved(void)
{
	return (struct sw_bytes *)(frame + 464);
}
//@
/* FP_XSTATE_MAGIC2 stands elsewhere, or with 0 nowhere. */
static void move_magic2(uint32_t to)
{
	memset(frame + sw_reserved()->xstate_size, 0, 4);
	if (to)
		memcpy(frame + to, "\x45\x58\x50\x46", 4);
}
