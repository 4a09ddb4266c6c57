"""The whole file."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import MSR_IA32_XFD, MSR_IA32_XFD_ERR, MSR_IA32_XSS
from xfdfuzz.native import script as sc
from xfdfuzz.native.control import EXACT
from xfdfuzz.native.script import Action, Expected
from xfdfuzz.native.values import known_features
from xfdfuzz.native.watching import watched
from xfdfuzz.program.ops import Op, guest, host, kvm, processes, signals, tasks
from xfdfuzz.program.step import NOT_ENABLED, PANIC
from xfdfuzz.report.export import guests
from xfdfuzz.report.export.parts import Part, chosen, needed, parts_of
from xfdfuzz.report.export.steps import Steps, is_kvm
from xfdfuzz.report.export.subject import Subject

_HERE = Path(__file__).parent
_WIDTH = 90
#: Ops by which a program is more than one task that goes from its first line to its last.
_FLOW = processes.CloneThread | processes.CloneVm | processes.Fork | processes.Execve | processes.Exit | signals.Signal


def source(subject: Subject, name: str, kselftest: bool = False) -> str:
    """The C file about ``subject``; ``name`` is the program's file.

    ``kselftest``: for tools/testing/selftests, with its helpers.  Raises ValueError if user space does not control the
    program (:func:`~xfdfuzz.native.control.unfit`).
    """
    best = (subject.good or subject.revision).kernel
    program, added = watched(subject.program, best)
    good = None if subject.good is None else subject.good.kernel
    return _Writer(subject, sc.script_of(program, subject.revision.kernel, good, added), name, kselftest).text()


class _Writer:
    def __init__(self, subject: Subject, script: sc.Script, name: str, kselftest: bool) -> None:
        self.subject = subject
        self.script = script
        self.name = name
        self.kselftest = kselftest
        self.steps = Steps(script)
        self.overlaps = any(action.rivals for action in script.flat())
        self.meets = any(rival.task != action.task for action in script.flat() for rival in action.rivals)
        self.kvm = any(is_kvm(step.op) for action in script.flat() for step in action.expected)
        self.alone = script.tasks in ((), (0,)) and not self.overlaps
        self.alone = self.alone and not any(isinstance(action.op, _FLOW) for action in script.flat())

    def text(self) -> str:
        """All of it: the parts that the rest needs stand before it."""
        body = [*self._body()]
        code = [*guests.lines(self.script.streams), ""] if self.script.streams else []
        rest = "\n".join([*self.steps.declared, *([""] if self.steps.declared else []), *code, *body])
        rest += "\n" + "\n".join(self._main())
        defines = [f"#define CHECKS {max(self.steps.checked, default=0) + 1}"]
        parts = [*self._parts()]
        # what harness.c says of all programs, and what this one says of itself
        known = needed(parts, rest)
        if "FEATURES" in known or "FEATURES" in rest:
            defines.append(
                f"#define FEATURES {known_features(self.script.program.machine):#x}ULL\t/* looked at in masks */"
            )
        forward = [*self._forward(known)]
        head, _, tail = known.partition("/*@ defines @*/\n")
        lines = [*defines, *forward]
        return _squeezed("\n".join([*self._header(), head + "\n".join(lines) + "\n" + tail, rest]))

    def _parts(self) -> Iterator[Part]:
        yield from parts_of(chosen((_HERE / "harness.c").read_text(), self._features()))

    def _features(self) -> set[str]:
        """What parts of harness.c depend on that only some programs need."""
        ops = [step.op for action in self.script.flat() for step in action.expected]
        entries = [op.entries for op in ops if isinstance(op, kvm.KvmSetCpuid2)]
        found = {"alone" if self.alone else "tasks"}
        found |= {"plain" if not self.kselftest else "kvm" if self.kvm else "x86"}
        found |= {"meets"} if self.meets else set()
        saves = (guest.GuestXsavec, guest.GuestXsaves, tasks.UserXsavec)
        compacted = any(isinstance(op, saves) or getattr(op, "xcomp_bv", 0) for op in ops)
        found |= {"compacted"} if compacted else set()
        found |= {"images"} if self.steps.looks_at_images else set()
        found |= {"copies"} if any(isinstance(op, signals.SigframeCopy) for op in ops) else set()
        return found | ({"other"} if any(e != type(e)(e.xcr0, e.xfd, e.amx) for e in entries) else set())

    def _forward(self, known: str) -> Iterator[str]:
        """Functions that harness.c calls and this program has."""
        if self.script.streams:
            yield "static void load_guest(int vcpu);"
        if "play(" in known:
            yield f"#define STEPS {len(self.script.actions)}"
            yield "static int step(unsigned int now);"
            yield "static const unsigned char actor[STEPS];"
        if self.meets:
            yield "static bool meet(unsigned int now);"
            yield "static const unsigned char rivals[STEPS];"
        if "look_at_frame(" in known:
            yield "static void look_at_frame(unsigned int now);"
        if "exec_task(" in known:
            yield "static int shared_fd;"

    # -- the program -------------------------------------------------------------------------------------------------

    def _body(self) -> Iterator[str]:
        if self.alone:
            inside = [line for action in self.script.actions for line in self._action(action)]
            yield from _function("static void begin(int task)", ["(void)task;", *self._begins(), *inside])
            return
        yield "/* Who does each step. */"
        yield f"static const unsigned char actor[STEPS] = {{ {', '.join(str(a.task) for a in self.script.actions)} }};"
        yield ""
        cases: list[str] = []
        for nr, action in enumerate(self.script.actions):
            lines = [*self._action(action)]
            comments = [line for line in lines if line.startswith(("/*", " *"))]
            inside = [f"\t{line}" for line in lines[len(comments) :]]
            leaves = bool(inside) and inside[-1].startswith("\treturn ")
            cases += [*comments, f"case {nr}:", *inside, *([] if leaves else ["\treturn STAY;"]), ""]
        yield from _function("static int step(unsigned int now)", ["switch (now) {", *cases[:-1], "}", "return STAY;"])
        yield ""
        if self.meets:
            yield from self._meet()
        if any(isinstance(action.op, signals.Signal) for action in self.script.flat()):
            yield from self._frames()
        random = ["srand(getpid());"] if self.overlaps else []
        yield from _function(
            "static void begin(int task)", ["am(task);", "pin(-1, 0);", *random, *self._begins(), "play();"]
        )

    def _begins(self) -> list[str]:
        faults = any(_faults(action.op) for action in self.script.flat())
        return [*(["catch_faults();"] if faults else []), *self.steps.prepared]

    def _action(self, action: Action) -> Iterator[str]:
        """Comments and statements; the statements come first to be, as they say what is checked."""
        statements = self.steps.statements(action)
        if action.rivals:
            statements = self._with_mover(action, statements)
        yield from self._comment(action)
        yield from statements
        if self.alone:
            yield ""

    def _with_mover(self, action: Action, statements: list[str]) -> list[str]:
        cpus = {r.op.cpu for r in action.rivals if isinstance(r.op, host.Schedule) and r.op.task == action.task}
        if len(cpus) < 2:
            return statements
        return [f"mover = start_mover({action.task}, 2);", *statements, "kill(mover, SIGKILL);"]

    def _comment(self, action: Action) -> Iterator[str]:
        lines = [line for step in action.expected for line in self._told(step)]
        how = {} if action.control is EXACT else {action.control.word: None}
        for step in action.expected:
            if step.control.how:
                how[step.control.word] = None
        lines += [f"({word})" for word in how]
        if len(lines) == 1 and len(lines[0]) <= _WIDTH:
            yield f"/* {_plain(lines[0])} */"
            return
        yield "/*"
        for line in lines:
            yield from (f" * {part}" for part in textwrap.wrap(_plain(line), _WIDTH, subsequent_indent="     "))
        yield " */"

    def _told(self, step: Expected) -> Iterator[str]:
        number = f"{step.number}. " if not step.added else f"{step.number}. (to look) "
        if step.good is None or step.good == step.model:
            yield f"{number}{step.line} = {step.model}"
        else:
            yield f"{number}{step.line} = {step.good}"
            if step.model is not None and step.model.ret != NOT_ENABLED:
                dies = step.model.ret == PANIC
                gives = "panics here" if dies else f"gives {step.model}"
                yield f"   BUG: {self.subject.revision.label} {gives}"

    # -- what meets what ---------------------------------------------------------------------------------------------

    def _meet(self) -> Iterator[str]:
        inside = []
        rivals: list[str] = []
        for nr, action in enumerate(self.script.actions):
            tasks = dict.fromkeys(rival.task for rival in action.rivals if rival.task != action.task)
            rivals.append(f"{sum(1 << task for task in tasks):#x}")
            for task in tasks:
                inside += [f"if (now == {nr} && me() == {task}) {{", *self._rival(action, task), "}"]
        yield "/* Which tasks are to meet each step. */"
        yield f"static const unsigned char rivals[STEPS] = {{ {', '.join(rivals)} }};"
        yield ""
        yield "/* What tasks do while another one does a step: they wake at random in the midst of it. */"
        yield from _function("static bool meet(unsigned int now)", [*(inside or ["(void)now;"]), "return false;"])
        yield ""

    def _rival(self, action: Action, task: int) -> Iterator[str]:
        yield "\tpause_at_random();"
        once: list[str] = []
        often: list[str] = []
        for rival in action.rivals:
            if rival.task != task or isinstance(rival.op, host.Schedule | host.ScheduleKthread | host.SoftirqKernelFpu):
                continue
            lines = [*self._comment(rival), *self.steps.statements(rival)]
            (once if isinstance(rival.op, kvm.KvmCreateVm | kvm.KvmCreateVcpu | _FLOW) else often).extend(lines)
        if once:
            yield "\tstatic int times;"
            yield "\tif (!times++) {"
            yield from (f"\t\t{line}" for line in once if not line.startswith("return"))
            yield "\t}"
        yield from (f"\t{line}" for line in often)
        yield "\treturn true;"

    def _frames(self) -> Iterator[str]:
        inside: list[str] = []
        for nr, action in enumerate(self.script.actions):
            if isinstance(action.op, signals.Signal):
                first = action.expected[0]
                checks = [*self.steps.image(first, "frame", self.steps.watched(first))]
                inside += [f"if (now == {nr})", *(f"\t{line}" for line in checks)] if checks else []
        yield from _function("static void look_at_frame(unsigned int now)", inside or ["(void)now;"])
        yield ""

    # -- main --------------------------------------------------------------------------------------------------------

    def _main(self) -> Iterator[str]:
        yield ""
        if not self.alone:
            yield f"#define FIRST_TASKS {2 if 1 in self.script.tasks else 1}"
            yield ""
        yield from chosen((_HERE / "main.c").read_text(), self._features()).splitlines()
        yield ""
        yield "/* The ops that are checked, with what they come to on a kernel that is right. */"
        yield "static const char *const ops[CHECKS] = {"
        for number, line in sorted(self.steps.checked.items()):
            yield f"\t[{number}] = {_string(line)},"
        yield "};"
        yield ""
        resumes = any(isinstance(action.op, processes.Execve) for action in self.script.flat())
        inside = ["double seconds = 10, began;", "unsigned long rounds = 0;", ""] if self.overlaps else []
        inside = [*inside, *(["bool mine = false;", ""] if self.subject.dangers else []), *self._arguments(resumes), ""]
        inside += ["ksft_print_header();", *self._requires(), *self._share(resumes), *self._rounds(), *self._report()]
        yield from _function("int main(int argc, char **argv)", inside)

    def _arguments(self, resumes: bool) -> Iterator[str]:
        if resumes:
            yield 'if (argc == 5 && !strcmp(argv[1], "--resume")) {'
            yield "\tshared_fd = atoi(argv[2]);"
            yield "\tsh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED, shared_fd, 0);"
            yield from (f"\t{line}" for line in self._begins())
            yield '\tverdict(atoi(argv[4]), true, "done");'
            yield "\tpass_turn(atoi(argv[3]));"
            yield "\tplay();"
            yield "\t_exit(0);"
            yield "}"
        yield "for (int i = 1; i < argc; i++)" + (" {" if self.subject.dangers or self.overlaps else "")
        words = []
        if self.subject.dangers:
            words.append(('!strcmp(argv[i], "--i-own-this-machine")', "mine = true;"))
        if self.overlaps:
            words.append(('!strncmp(argv[i], "--seconds=", 10)', "seconds = atof(argv[i] + 10);"))
        usage = (
            f"{'--i-own-this-machine' if self.subject.dangers else ''} {'--seconds=S' if self.overlaps else ''}".split()
        )
        for nr, (test, then) in enumerate(words):
            yield f"\t{'else ' if nr else ''}if ({test})"
            yield f"\t\t{then}"
        refuse = f'ksft_exit_fail_msg("%s: expected {" or ".join(usage) or "no argument"}\\n", argv[i]);'
        yield "\telse" if words else f"\t{refuse}"
        if words:
            yield f"\t\t{refuse}"
            yield "}"

    def _requires(self) -> Iterator[str]:
        """What the machine has to have: else the test is skipped."""
        if self.subject.dangers:
            yield "if (!mine)"
            said = "; ".join(self.subject.dangers)
            yield f"\tksft_exit_skip({_string(said)}"
            yield '\t\t       ": run it with --i-own-this-machine where nothing else runs\\n");'
        ops, known = self.script.program.ops, known_features(self.script.program.machine)
        named = _components(ops, kvm_only=False)
        yield from _lacks("host_features()", named & known, "this CPU or kernel lacks one of")
        without = named & ~known & (xf.MASK_AVX512 | xf.MASK_PKRU | xf.MASK_XTILE)
        if without:
            yield f"if (host_features() & {without:#x})"
            yield f'\tksft_exit_skip("it is about a machine without {xf.format_mask(without)}\\n");'
        if self.kvm:
            yield "open_kvm();"
            missing = "this KVM does not give guests all of"
            yield from _lacks("guest_features()", _components(ops, kvm_only=True) & known, missing)
        if self.script.program.machine.cpus > 1:
            yield "if (sysconf(_SC_NPROCESSORS_ONLN) < 2)"
            yield '\tksft_exit_skip("it takes two CPUs\\n");'

    def _share(self, resumes: bool) -> Iterator[str]:
        fd = "-1"
        if resumes:
            yield 'shared_fd = memfd_create("checks", 0);'
            yield "if (ftruncate(shared_fd, sizeof(*sh)))"
            yield '\tksft_exit_skip("memfd_create: %s\\n", strerror(errno));'
            fd = "shared_fd"
        flags = "MAP_SHARED" if resumes else "MAP_SHARED | MAP_ANONYMOUS"
        yield f"sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, {flags}, {fd}, 0);"
        if not self.alone:
            yield "prctl(PR_SET_CHILD_SUBREAPER, 1);"

    def _rounds(self) -> Iterator[str]:
        if self.script.died:
            yield f'ksft_print_msg("a kernel such as {self.subject.revision.label} dies now\\n");'
            yield "fflush(stdout);"
        if not self.overlaps:
            yield "one_round();"
            return
        yield "for (began = clock_now(); clock_now() < began + seconds && !sh->skip[0]; rounds++)"
        yield "\tone_round();"
        yield 'ksft_print_msg("%lu rounds in %.0f s; what is approximated may need many more\\n", rounds, seconds);'

    def _report(self) -> Iterator[str]:
        yield "if (sh->skip[0])"
        yield '\tksft_exit_skip("%s\\n", sh->skip);'
        yield f"ksft_set_plan({len(self.steps.checked)});"
        yield "for (int i = 1; i < CHECKS; i++) {"
        yield "\tunsigned int seen = sh->check[i].seen, wrong = sh->check[i].wrong;"
        yield ""
        yield "\tif (!ops[i])"
        yield "\t\tcontinue;"
        if self.steps.looks_at_images:
            yield "\tif (sh->lacking[i]) {"
            yield '\t\tksft_test_result_skip("%d. %s: nothing of that is in this CPU or kernel\\n", i, ops[i]);'
            yield "\t\tcontinue;"
            yield "\t}"
        yield '\tksft_test_result(seen && !wrong, "%d. %s\\n", i, ops[i]);'
        yield "\tif (wrong)"
        seen = "; wrong %u of %u times", ", wrong, seen"
        text, values = seen if self.overlaps else ("", "")
        yield f'\t\tksft_print_msg("got %s{text}\\n", sh->check[i].got{values});'
        yield "\telse if (!seen)"
        yield '\t\tksft_print_msg("not reached\\n");'
        if self.overlaps:
            yield "\telse"
            yield '\t\tksft_print_msg("right all %u times\\n", seen);'
        yield "}"
        if any(b for b in self.subject.broken):
            yield 'ksft_print_msg("WARN and BUG are in the kernel\'s log only: look at dmesg\\n");'
        yield "ksft_finished();"

    # -- what stands above -------------------------------------------------------------------------------------------

    def _header(self) -> Iterator[str]:
        program, subject = self.subject.program, self.subject
        yield "// SPDX-License-Identifier: GPL-2.0-only"
        yield "/*"
        paragraphs = [program.title or self.name, " ".join(program.comments), *self._about()]
        for nr, paragraph in enumerate(p for p in paragraphs if p):
            if nr:
                yield " *"
            yield from (f" * {line}" for line in textwrap.wrap(_plain(paragraph), _WIDTH - 3, break_on_hyphens=False))
        if subject.private:
            yield " *"
            yield " * PRIVATE: it may be a vulnerability of a current kernel, whose maintainers come first."
        for danger in subject.dangers:
            yield " *"
            yield from (f" * {line}" for line in textwrap.wrap(f"DANGER: {danger}", _WIDTH - 3))
        yield " *"
        yield f" * Written by xfdfuzz export {_plain(self.name)}."
        yield " */"

    def _about(self) -> Iterator[str]:
        subject = self.subject
        told = f"The results in comments are those of xfdfuzz' model of {subject.revision.label}"
        if subject.good is not None and subject.good.label != subject.revision.label:
            told += f"; where they are not right, those of {subject.good.label} stand first, and are checked"
        yield told + "."
        if subject.broken:
            yield f"On {subject.revision.label} it breaks: {', '.join(subject.broken)}."
        else:
            yield f"On {subject.revision.label} it breaks nothing."
        if self.overlaps:
            yield (
                "User space cannot force what meets what here. Tasks share a CPU, timers wake them at random, and all "
                "of it is repeated: that nothing is seen does not say that nothing is wrong."
            )


def _function(head: str, inside: Sequence[str]) -> Iterator[str]:
    yield head
    yield "{"
    text = "\n".join(inside)
    names = {"ret": "long ret;", "value": "unsigned long long value;", "mover": "pid_t mover;"}
    found = [line for name, line in names.items() if re.search(rf"(?<![.\w]){name}\b(?!\()", _statements(text))]
    yield from (f"\t{line}" for line in found)
    if found:
        yield ""
    while inside and not inside[-1]:
        inside = inside[:-1]
    for line in text.rstrip("\n").split("\n"):
        yield from _wrapped(f"\t{line}") if line else [""]
    yield "}"


def _wrapped(line: str) -> Iterator[str]:
    """A statement in lines that are short enough, if that is possible without breaking a text."""
    indent = line[: len(line) - len(line.lstrip("\t"))]
    while len(line.expandtabs(8)) > 100 and '"' not in line and not line.lstrip().startswith(("/*", "*")):
        room = 100 - len(line.expandtabs(8)) + len(line)
        start = len(indent) + 10
        at = max(line.rfind(mark, start, room) for mark in (", {", ", (struct", ", &(", ", (void"))
        at = at if at >= 0 else line.rfind(", ", start, room)
        if at < 0:
            break
        yield line[: at + 1]
        line = f"{indent}\t{line[at + 2 :]}"
    yield line


def _statements(text: str) -> str:
    return re.sub(r'/\*.*?\*/|"(?:\\.|[^"\\])*"', " ", text, flags=re.S)


def _plain(text: str) -> str:
    return text.replace("*/", "* /").replace("/*", "/ *")


def _string(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _squeezed(text: str) -> str:
    return re.sub(r"\n{3,}", "\n\n", text).rstrip("\n") + "\n"


def _lacks(there: str, wanted: int, reason: str) -> Iterator[str]:
    if wanted:
        yield f"if (~{there} & {wanted:#x})"
        yield f'\tksft_exit_skip("{reason} {xf.format_mask(wanted)}\\n");'


def _faults(op: Op) -> bool:
    return type(op).__name__.startswith("User") or isinstance(op, signals.Signal)


def _components(ops: Sequence[Op], kvm_only: bool) -> int:
    """The components that a program is about: those that it names and that its machine has."""
    found = 0
    for op in ops:
        if kvm_only and not is_kvm(op):
            continue
        match op:
            case tasks.ReqXcompPerm(facility=xf.XTILE_DATA) | tasks.ReqXcompGuestPerm(facility=xf.XTILE_DATA):
                found |= xf.MASK_XTILE
            case kvm.KvmSetCpuid2():
                found |= op.entries.xcr0 | (xf.MASK_XTILE if op.entries.xfd else 0)
            case guest.GuestRdmsr() | guest.GuestWrmsr() | kvm.KvmGetMsrs():
                found |= xf.MASK_XTILE if op.msr in (MSR_IA32_XFD, MSR_IA32_XFD_ERR) else 0
            case kvm.KvmSetMsrs():
                found |= xf.MASK_XTILE if any(index != MSR_IA32_XSS for index, _ in op.msrs.entries) else 0
            case kvm.KvmSetXcrs() | guest.GuestXsetbv():
                found |= op.xcr0
            case tasks.UserLdtilecfg() | tasks.UserTileload() | tasks.UserTilestore():
                found |= xf.MASK_XTILE
            case tasks.UserSttilecfg():
                found |= xf.MASK_XTILE
            case tasks.UserWrpkru():
                found |= xf.MASK_PKRU
            case tasks.UserVmovups() | tasks.UserVextractf128():
                found |= xf.MASK_YMM
            case tasks.UserXrstor():
                found |= op.mask & op.xstate_bv & xf.mask_of(*range(xf.XTILE_DATA + 1))
    return found & ~xf.MASK_FPSSE
