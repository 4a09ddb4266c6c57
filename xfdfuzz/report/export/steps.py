"""What each action is in C, and what is checked of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.kernel import errno
from xfdfuzz.kernel.fpu.signal import FP_XSTATE_MAGIC1
from xfdfuzz.native import script as sc
from xfdfuzz.native.script import Action, Expected, Guest
from xfdfuzz.native.values import STORED, Value, value_of
from xfdfuzz.program import ghost
from xfdfuzz.program.fields import FpuImage, IovLen, UserImage
from xfdfuzz.program.ops import Op, guest, host, kvm, processes, ptrace, run, signals, tasks, xsave
from xfdfuzz.program.ops.base import GuestOp
from xfdfuzz.program.step import NOT_ENABLED, PANIC, FpuState, Image, Result, SwBytes
from xfdfuzz.report.export.guests import COMPONENTS, content_list, image, number_of, token

#: The function of harness.c for an instruction that stores, and the component.
_STORES: dict[type[Op], tuple[str, str]] = {
    tasks.UserTilestore: ("tilestore", "XTILEDATA"),
    tasks.UserSttilecfg: ("sttilecfg", "XTILECFG"),
    tasks.UserVextractf128: ("vextractf128", "AVX"),
}
_VECTORS = {"#UD": 6, "#NM": 7, "#DF": 8, "#GP": 13}
_EXITS = {"KVM_EXIT_IO": "EXIT_OUT", "KVM_EXIT_HLT": "EXIT_HLT"}
_MSRS = {0x1C4: "MSR_IA32_XFD", 0x1C5: "MSR_IA32_XFD_ERR", 0xDA0: "MSR_IA32_XSS"}
#: Components of which the C code around a task's instructions knows nothing.
_QUIET = xf.MASK_XTILE | xf.MASK_PKRU
#: How often a KVM_RUN that others are to meet is repeated in a round.
AGAIN = 200


@dataclass
class Steps:
    """Writes actions; notes what it has checked, and which memory it needs."""

    script: sc.Script
    #: Number of a checked op to its line with what it should come to.
    checked: dict[int, str] = field(default_factory=dict)
    looks_at_images: bool = False
    #: C definitions, and statements that prepare operands before the first action.
    declared: list[str] = field(default_factory=list)
    prepared: list[str] = field(default_factory=list)

    def statements(self, action: Action) -> list[str]:
        """The statements of an action, without indentation."""
        if action.run is not None:
            return [*self._run(action, action.run)]
        if _absent(action.op, action.last):
            return []
        return [*self._call(action)]

    # -- checks ------------------------------------------------------------------------------------------------------

    def check(self, step: Expected) -> int:
        """The number under which what is seen of ``step`` is noted."""
        self.checked[step.number] = f"{step.line} = {step.wanted}"
        return step.number

    def ret(self, step: Expected, call: str) -> str:
        """Check what ``call`` returns; call it all the same where nothing is expected."""
        wanted = step.wanted
        if wanted is None or wanted.ret in (NOT_ENABLED, PANIC):
            return f"{call};"
        if isinstance(wanted.ret, str) and wanted.ret.rstrip("0123456789") in ("vm", "v", "t"):
            return f"check_new({self.check(step)}, {call});"
        return f"check_ret({self.check(step)}, {call}, {_number(wanted)});"

    def valued(self, step: Expected, call: str) -> Iterator[str]:
        """Check what ``call`` returns, and leaves in ``value``."""
        wanted, kind = step.wanted, value_of(step.op)
        if wanted is None or not isinstance(wanted.out, int) or kind is None:
            yield self.ret(step, call)
            return
        checker = {Value.FEATURES: "check_mask", Value.NUMBER: "check_value"}[kind]
        yield f"ret = {call};"
        there = ", guest_features()" if is_kvm(step.op) else ", host_features()"
        there = there if kind is Value.FEATURES else ""
        yield f"{checker}({self.check(step)}, ret, {_number(wanted)}, value, {wanted.out:#x}{there});"

    def _declare(self, line: str) -> None:
        if line not in self.declared:
            self.declared.append(line)

    def image(self, step: Expected, at: str, mask: int) -> Iterator[str]:
        """Check the contents of an image at ``at``, of the components in ``mask``."""
        wanted = step.wanted
        if wanted is None or not isinstance(wanted.out, Image):
            return
        held = [(i, value) for i, value in wanted.out.tokens if i <= xf.XTILE_DATA or i == xf.MXCSR]
        contents = content_list(held)
        self.looks_at_images = True
        yield f"check_image({self.check(step)}, {at}, {mask & xf.mask_of(*range(19)):#x}, {contents});"

    def watched(self, step: Expected) -> int:
        """The components of a task's image that are looked at."""
        return _watched(step)

    # -- system calls and instructions of tasks ----------------------------------------------------------------------

    def _call(self, action: Action) -> Iterator[str]:
        op, step = action.op, action.last
        match op:
            case host.Schedule():
                yield f"pin({op.task}, {op.cpu});"
            case host.ScheduleKthread() | host.SoftirqKernelFpu() | host.Idle():
                yield "pause_ms(20);"
            case host.HostRdmsr():
                yield from self._host_msr(op, step)
            case tasks.ReturnToUser():
                return
            case processes.Execve() | signals.Signal() | signals.Sigreturn() | signals.Siglongjmp():
                yield from self._flow(action)
            case processes.CloneThread() | processes.CloneVm() | processes.Fork() | processes.Exit():
                yield from self._process(op, step)
            case _ if type(op).__module__ == ptrace.__name__:
                yield from self._ptrace(op, step)
            case _ if type(op).__name__.startswith("Sigframe"):
                yield from self._frame(op, step)
            case _ if type(op).__module__.endswith(".tasks"):
                yield from self._task(op, step)
            case _:
                yield from self._ioctl(op, step)

    def _host_msr(self, op: host.HostRdmsr, step: Expected) -> Iterator[str]:
        yield f"if (host_msr({op.cpu}, {_msr(op.msr)}, &value))"
        yield f'\tskip_test("cannot read /dev/cpu/{op.cpu}/msr (root, modprobe msr)");'
        if step.wanted is not None and isinstance(step.wanted.out, int):
            yield f"check_value({self.check(step)}, 0, 0, value, {step.wanted.out:#x});"

    def _flow(self, action: Action) -> Iterator[str]:
        """What leaves the order of the program: the step's number is ``now``."""
        match action.op:
            case processes.Execve():
                yield f"exec_task({self.check(action.expected[0])}, now);"
            case signals.Signal():
                yield "ret = raise_signal(now);"
                if _ret(action.expected[0]) == "SIGSEGV":
                    yield f"check_signal({self.check(action.expected[0])}, ret, SIGSEGV);"
                else:
                    yield "if (left_check)"
                    yield "\tcheck_signal(left_check, ret, left_signal);"
                    yield "pass_turn(left_by);"
                    yield "return CHILD;"
            case signals.Siglongjmp():
                yield "left_check = 0;"
                yield "return JUMP;"
            case signals.Sigreturn():
                known = _ret(action.last) in ("ok", "SIGSEGV")
                yield f"left_check = {self.check(action.last) if known else 0};"
                yield f"left_signal = {'SIGSEGV' if _ret(action.last) == 'SIGSEGV' else 0};"
                yield "return LEAVE;"

    def _process(self, op: Op, step: Expected) -> Iterator[str]:
        match op:
            case processes.Exit():
                yield "pass_turn(now);"
                yield "syscall(SYS_exit, 0);"
            case processes.Fork():
                yield f"ret = fork_task({_created(step)});"
                yield "if (!ret)"
                yield "\treturn CHILD;"
                yield self.ret(step, "ret")
            case processes.CloneThread():
                yield f"check_ret({self.check(step)}, thread_task({_created(step)}), 0);"
            case _:
                yield self.ret(step, f"vm_task({_created(step)})")

    def _ptrace(self, op: Op, step: Expected) -> Iterator[str]:
        match op:
            case ptrace.PtraceGetXstate():
                room = self._room(step.number)
                yield self.ret(step, f"get_regset({op.tracee}, NT_X86_XSTATE, {room}, {_iov_len(op.iov_len)})")
                yield from self.image(step, room, self.watched(step))
            case ptrace.PtraceSetXstate():
                held = image(op.image, partial(ghost.task_token, op.tracee))
                yield self.ret(step, f"write_regset({op.tracee}, {held}, {_iov_len(op.iov_len, 0)})")
            case ptrace.PtraceGetFpregs():
                room = self._room(step.number)
                size = _iov_len(op.iov_len, 512)
                yield self.ret(step, f"get_regset({op.tracee}, NT_PRFPREG, {room}, {size})")
                yield from self._legacy(
                    step, {xf.X87: f"{room} + 32", xf.SSE: f"{room} + 400", xf.MXCSR: f"{room} + 24"}
                )
            case ptrace.PtraceSetFpregs():
                held = self._fpu(op.image, partial(ghost.task_token, op.tracee))
                yield self.ret(step, f"write_fpregs({op.tracee}, {held}, {_iov_len(op.iov_len, 512)})")

    def _fpu(self, held: FpuImage, owner: Callable[[int], int]) -> str:
        """x87, SSE and MXCSR as arguments."""
        numbers = {xf.X87: held.data, xf.SSE: held.data, xf.MXCSR: 0} | dict(held.contents)
        return ", ".join(token(ghost.contents_of(numbers[i], owner)) for i in xf.LEGACY)

    def _legacy(self, step: Expected, at: dict[int, str]) -> Iterator[str]:
        """Check x87, SSE and MXCSR, as far as there are any."""
        if step.wanted is None or not isinstance(step.wanted.out, FpuState):
            return
        for i, value in step.wanted.out.tokens:
            yield f"check_content({self.check(step)}, {COMPONENTS[i]}, {at[i]}, {token(value)});"

    def _room(self, number: int) -> str:
        self._declare(f"static unsigned char room{number}[0x10000] __attribute__((aligned(64)));")
        return f"room{number}"

    def _frame(self, op: Op, step: Expected) -> Iterator[str]:
        match op:
            case signals.SigframeRead():
                wanted = step.wanted
                if wanted is not None and isinstance(wanted.out, SwBytes):
                    out = wanted.out
                    first, second = str(out.magic1).lower(), str(out.magic1 and out.magic2).lower()
                    yield f"check_frame({self.check(step)}, {out.xfeatures:#x}, {first}, {second});"
            case signals.SigframeSwReserved():
                yield from _sw_reserved(op)
            case signals.SigframeCopy():
                yield f"copy_frame({op.size});"
            case signals.SigframeWrite():
                yield f"write_frame({image(op.image, partial(ghost.task_token, op.task))});"

    def _task(self, op: Op, step: Expected) -> Iterator[str]:
        match op:
            case tasks.GetXcompSupp() | tasks.GetXcompPerm() | tasks.GetXcompGuestPerm():
                code = {
                    tasks.GetXcompSupp: "ARCH_GET_XCOMP_SUPP",
                    tasks.GetXcompPerm: "ARCH_GET_XCOMP_PERM",
                    tasks.GetXcompGuestPerm: "ARCH_GET_XCOMP_GUEST_PERM",
                }[type(op)]
                where = "BAD_POINTER" if op.pointer else "&value"
                yield from self.valued(step, f"xcomp({code}, (unsigned long){where})")
            case tasks.ReqXcompPerm():
                yield self.ret(step, f"xcomp(ARCH_REQ_XCOMP_PERM, {_facility(op.facility)})")
            case tasks.ReqXcompGuestPerm():
                yield self.ret(step, f"xcomp(ARCH_REQ_XCOMP_GUEST_PERM, {_facility(op.facility)})")
            case tasks.Sigaltstack():
                yield self.ret(step, f"altstack({op.size})")
            case _:
                yield from self._instruction(op, step)

    def _surely(self, in_use: int) -> int:
        """What of it any processor calls in use."""
        return in_use & ~self.script.program.machine.in_use

    def _instruction(self, op: Op, step: Expected) -> Iterator[str]:
        match op:
            case tasks.UserXgetbv():
                wanted = step.wanted
                if wanted is not None and isinstance(wanted.out, int):
                    yield f"value = xgetbv({op.index});"
                    check = self.check(step)
                    both = f"value, {self._surely(wanted.out) if op.index else wanted.out:#x});"
                    masked = both.replace(")", ", host_features())")
                    yield f"check_in_use({check}, {both}" if op.index else f"check_mask({check}, 0, 0, {masked}"
            case tasks.UserXsave() | tasks.UserXsavec():
                room = self._room(step.number)
                yield f"xsave_mask = {op.mask:#x};"
                yield f"try_user({'xsave' if isinstance(op, tasks.UserXsave) else 'xsavec'}_user, {room});"
                yield from self.image(step, room, op.mask & _watched(step, op.mask))
            case tasks.UserXrstor():
                named = ((xf.MXCSR, op.mxcsr),) if op.mxcsr else ()
                wanted_image = UserImage(op.xstate_bv, op.token, named, op.xcomp_bv)
                held, room = image(wanted_image, partial(ghost.task_token, op.task)), self._room(step.number)
                yield f"fill_image({room}, sizeof({room}), {held});"
                yield f"xrstor_mask = {op.mask:#x};"
                yield from self._signal(step, f"try_user(xrstor_user, {room})")
            case tasks.UserTilestore() | tasks.UserSttilecfg() | tasks.UserVextractf128():
                name, component = _STORES[type(op)]
                room = self._room(step.number)
                yield f"ret = try_user({name}, {room});"
                yield from self._signal(step, "ret")
                if step.wanted is not None and isinstance(step.wanted.out, int):
                    yield "if (!ret)"
                    yield f"\tcheck_content({step.number}, {component}, {room}, {token(step.wanted.out)});"
            case tasks.UserStmxcsr():
                room = self._room(step.number)
                yield f"try_user(stmxcsr, {room});"
                if step.wanted is not None and isinstance(step.wanted.out, int):
                    yield f"check_content({self.check(step)}, MXCSR, {room}, {token(step.wanted.out)});"
            case tasks.UserTilerelease():
                yield from self._signal(step, "try_user(tilerelease, NULL)")
            case _:
                yield from self._load(op, step)

    def _load(self, op: Op, step: Expected) -> Iterator[str]:
        known: dict[type[Op], tuple[str, str, str]] = {
            tasks.UserFld: ("fld", "X87", "contents"),
            tasks.UserMovups: ("movups", "SSE", "contents"),
            tasks.UserVmovups: ("vinsertf128", "AVX", "token"),
            tasks.UserLdtilecfg: ("ldtilecfg", "XTILECFG", "token"),
            tasks.UserTileload: ("tileload", "XTILEDATA", "token"),
            tasks.UserWrpkru: ("wrpkru", "PKRU", "pkru"),
            tasks.UserLdmxcsr: ("ldmxcsr", "MXCSR", "contents"),
        }
        insn, component, number = known[type(op)]
        value = getattr(op, number)
        held = token(ghost.contents_of(value, partial(ghost.task_token, op.task)))  # type: ignore[attr-defined]
        if insn == "fld" and not value:
            yield from self._signal(step, "try_user(fninit, NULL)")
            return
        insn = "fldcw" if held == "ZERO" and insn == "fld" else insn
        name = f"{component.lower()}_t{op.task}_{value}"  # type: ignore[attr-defined]
        self._declare(f"static unsigned char {name}[1024];")
        statement = f"put_sample({name}, {component}, {held});"
        if statement not in self.prepared:
            self.prepared.append(statement)
        yield from self._signal(step, f"try_user({insn}, {name})")

    def _signal(self, step: Expected, call: str) -> Iterator[str]:
        wanted = _ret(step)
        if wanted in (None, NOT_ENABLED, PANIC):
            yield f"{call};"
        else:
            yield f"check_signal({self.check(step)}, {call}, {wanted if wanted != 'ok' else 0});"

    # -- ioctls ------------------------------------------------------------------------------------------------------

    def _ioctl(self, op: Op, step: Expected) -> Iterator[str]:
        match op:
            case kvm.KvmCreateVm():
                yield self.ret(step, f"create_vm({_created(step)})")
            case kvm.KvmCreateVcpu():
                osxsave = str(not op.reset).lower()
                yield self.ret(step, f"create_vcpu({op.vm}, {_created(step)}, {op.id}, {osxsave})")
            case kvm.CloseVm():
                yield self.ret(step, f"close_vm({op.vm})")
            case kvm.KvmGetSupportedCpuid():
                yield "value = cpuid_xcr0(supported_cpuid());"
                yield from self.valued(step, "0")
            case kvm.KvmGetDeviceAttr():
                where = "BAD_POINTER" if op.pointer else "&value"
                yield from self.valued(step, f"read_attr({op.group}, {op.attr}, {where})")
            case kvm.KvmHasDeviceAttr():
                yield self.ret(step, f"has_attr({op.group}, {op.attr})")
            case kvm.KvmGetMsrIndexList():
                if step.wanted is not None and isinstance(step.wanted.out, int):
                    yield f"check_ret({self.check(step)}, has_msr({_msr(op.msr)}), {step.wanted.out});"
            case xsave.KvmCheckXsave2():
                yield self.ret(step, "do_ioctl(kvm_fd, KVM_CHECK_EXTENSION, (void *)KVM_CAP_XSAVE2)")
            case xsave.KvmVmCheckXsave2():
                yield self.ret(step, f"do_ioctl(vms[{op.vm}].fd, KVM_CHECK_EXTENSION, (void *)KVM_CAP_XSAVE2)")
            case _:
                yield from self._vcpu(op, step)

    def _vcpu(self, op: Op, step: Expected) -> Iterator[str]:
        vcpu: int = op.vcpu  # type: ignore[attr-defined]
        match op:
            case kvm.KvmSetCpuid2():
                yield self.ret(step, f"set_cpuid({vcpu}, &(struct cpuid){{ {_entries(op)} }})")
            case kvm.KvmSetCpuid2Supported():
                yield from self.valued(step, f"set_supported_cpuid({vcpu}, &value)")
            case kvm.KvmGetCpuid2():
                yield from self.valued(step, f"get_cpuid({vcpu}, &value)")
            case kvm.KvmSetSregs():
                osxsave, ts = (str(bit).lower() for bit in (op.sregs.osxsave, op.sregs.ts))
                yield f"vcpus[{vcpu}].osxsave = {osxsave};"
                yield f"vcpus[{vcpu}].ts = {ts};"
                yield self.ret(step, f"set_sregs({vcpu}, {osxsave}, {ts})")
            case kvm.KvmSetRegs():
                yield self.ret(step, f"set_regs({vcpu})")
            case kvm.KvmSetXcrs():
                yield self.ret(step, f"set_xcrs({vcpu}, {op.xcr0:#x}, {op.xcr}, {op.nr_xcrs}, {op.flags})")
            case kvm.KvmGetXcrs():
                yield from self.valued(step, f"get_xcr0({vcpu}, &value)")
            case kvm.KvmSetMsrs():
                held = ", ".join(f"{{ .index = {_msr(i)}, .data = {value:#x} }}" for i, value in op.msrs.entries)
                entries = f"(struct kvm_msr_entry[]){{ {held} }}" if held else "NULL"
                yield self.ret(step, f"set_msrs({vcpu}, {len(op.msrs.entries)}, {entries})")
            case kvm.KvmGetMsrs():
                yield from self.valued(step, f"get_msr({vcpu}, {_msr(op.msr)}, &value)")
            case kvm.KvmGetMpState():
                yield self.ret(step, f"do_ioctl(vcpus[{vcpu}].fd, KVM_GET_MP_STATE, &(struct kvm_mp_state){{ 0 }})")
            case _:
                yield from self._xsave(op, step, vcpu)

    def _xsave(self, op: Op, step: Expected, vcpu: int) -> Iterator[str]:
        match op:
            case xsave.KvmSetXsave():
                held = image(op.image, partial(ghost.vcpu_token, vcpu))
                size = op.buffer.size
                room = f"buffer_of({size}, {str(op.buffer.guarded).lower()}), {size}"
                call = f"set_xsave({vcpu}, {held})" if size is None else f"set_xsave_from({vcpu}, {room}, {held})"
                yield self.ret(_without_overrun(step), call)
            case xsave.KvmGetXsave() | xsave.KvmGetXsave2():
                yield from self._get_xsave(op, step, vcpu)
            case xsave.KvmSetFpu():
                yield self.ret(step, f"set_fpu({vcpu}, {self._fpu(op.image, partial(ghost.vcpu_token, vcpu))})")
            case xsave.KvmGetFpu():
                self._declare("static struct kvm_fpu fpu;")
                yield self.ret(step, f"get_fpu({vcpu}, &fpu)")
                at = {xf.X87: "fpu.fpr[0]", xf.SSE: "fpu.xmm[15]", xf.MXCSR: "&fpu.mxcsr"}
                yield from self._legacy(step, at)

    def _get_xsave(self, op: xsave.KvmGetXsave | xsave.KvmGetXsave2, step: Expected, vcpu: int) -> Iterator[str]:
        command = "KVM_GET_XSAVE" if isinstance(op, xsave.KvmGetXsave) else "KVM_GET_XSAVE2"
        image, size = "image_room", op.buffer.size
        call = f"get_xsave({vcpu}, {command})"
        if size is not None:
            image = "image"
            self._declare("static unsigned char *image;")
            yield f"image = buffer_of({size}, {str(op.buffer.guarded).lower()});"
            call = f"do_ioctl(vcpus[{vcpu}].fd, {command}, image)"
        if op.buffer.size is not None and not op.buffer.guarded and _ret(step) in (0, "overrun"):
            wanted = "!" if _ret(step) == 0 else ""
            yield f"{call};"
            yield f'verdict({self.check(step)}, {wanted}overrun(image, {size}), "the bytes behind the buffer");'
            return
        plain = self.ret(step, call)
        if isinstance(step.wanted and step.wanted.out, Image):
            yield f"if ({plain[:-1]})"
            yield from ("\t" + line for line in self.image(step, image, xf.U64_MAX))
        else:
            yield plain

    # -- guests ------------------------------------------------------------------------------------------------------

    def _run(self, action: Action, entry: sc.Run) -> Iterator[str]:
        first = action.expected[0]
        wanted = _ret(first)
        if wanted != "ok":
            if not _absent(action.op, first):
                yield self.ret(first, f"do_ioctl(vcpus[{entry.vcpu}].fd, KVM_RUN, NULL)")
            return
        stream = next(stream for stream in self.script.streams if stream.vcpu == entry.vcpu)
        numbers = [number_of(stream, g.insn) for g in entry.guest]
        if action.rivals and entry.guest:
            start = entry.guest[0].insn.address
            yield f"for (int again = 0; again < {AGAIN}; again++) {{"
            yield f"\trestart({entry.vcpu}, {start:#x}, {numbers[0]}, {numbers[-1]});"
            if entry.flag:
                yield f"\t*(unsigned char *)guest_memory({entry.vcpu}, {entry.flag:#x}) = 0;"
            yield from ("\t" + line for line in self._once(action, entry, numbers))
            yield "}"
            return
        yield from self._once(action, entry, numbers)

    def _once(self, action: Action, entry: sc.Run, numbers: list[int]) -> Iterator[str]:
        reached = [
            nr
            for nr, g in zip(numbers, entry.guest, strict=True)
            if g.insn.what != "wait for the host, which has a signal"
        ]
        call = {
            sc.NEVER_ENTERED: f"run_never({entry.vcpu})",
            sc.SIGNAL: f"run_until_signal({entry.vcpu}, {reached[-1] if reached else -1}, {entry.flag:#x})",
        }.get(entry.end, f"run_guest({entry.vcpu})")
        step, exit_code = action.last, _exit(action, entry)
        yield f"check_ret({self.check(_named(step, action))}, {call}, {exit_code});" if exit_code else f"{call};"
        for nr, what in zip(numbers, entry.guest, strict=True):
            yield from self._guest(entry.vcpu, nr, what)

    def _guest(self, vcpu: int, nr: int, what: Guest) -> Iterator[str]:
        step = what.expected
        if step is None or step.wanted is None or isinstance(step.op, guest.GuestOut | guest.GuestHlt):
            return
        wanted = step.wanted
        number = self.check(step)
        if wanted.ret in _VECTORS:
            yield f"check_guest({number}, {vcpu}, {nr}, {_VECTORS[str(wanted.ret)]});"
            return
        done = f"check_guest({number}, {vcpu}, {nr}, -1)"
        operand = what.insn.operand
        at = f"guest_memory({vcpu}, {operand.address:#x})" if operand else ""
        match value_of(step.op):
            case Value.NUMBER if isinstance(wanted.out, int):
                yield f"check_read({number}, {vcpu}, {nr}, {wanted.out:#x});"
            case Value.IN_USE if isinstance(wanted.out, int):
                yield f"check_read_in_use({number}, {vcpu}, {nr}, {self._surely(wanted.out):#x});"
            case Value.CONTENT if isinstance(wanted.out, int):
                component = COMPONENTS[STORED[type(step.op)]]
                yield f"if ({done})"
                yield f"\tcheck_content({number}, {component}, {at}, {token(wanted.out)});"
            case Value.IMAGE if isinstance(step.op, guest.GuestFxsave):
                yield f"if ({done})"
                yield from ("\t" + line for line in self._fxsave(step, at))
            case Value.IMAGE:
                yield f"if ({done})"
                mask = step.op.mask  # type: ignore[attr-defined]
                yield from ("\t" + line for line in self.image(step, at, mask))
            case _:
                yield f"{done};"

    def _fxsave(self, step: Expected, at: str) -> Iterator[str]:
        out = step.wanted.out if step.wanted is not None else None
        held = dict(out.tokens) if isinstance(out, Image) else {}
        tokens = ", ".join(token(held.get(i, 0)) for i in xf.LEGACY)
        yield f"check_legacy({step.number}, {at}, {tokens});"


def is_kvm(op: Op) -> bool:
    """Whether it takes /dev/kvm."""
    return isinstance(op, GuestOp) or type(op).__module__ in {m.__name__ for m in (kvm, xsave, run)}


def _absent(op: Op, step: Expected) -> bool:
    """Whether it cannot happen on a kernel that is right."""
    return step.wanted is not None and step.wanted.ret == NOT_ENABLED and not isinstance(op, processes.Execve)


def _ret(step: Expected) -> int | str | None:
    return None if step.wanted is None else step.wanted.ret


def _number(wanted: Result) -> str:
    if isinstance(wanted.ret, int):
        return f"-{errno.NAMES[-wanted.ret]}" if wanted.ret < 0 else str(wanted.ret)
    return "0"


def _created(step: Expected) -> int:
    """The number of what is made; where nothing is to be made, one that is not used otherwise."""
    word = str(_ret(step))
    digits = word[len(word.rstrip("0123456789")) :]
    return int(digits) if digits and not word.startswith("-") else 2


def _without_overrun(step: Expected) -> Expected:
    """KVM_SET_XSAVE that reads beyond the buffer succeeds, and nobody sees that it did."""
    if _ret(step) != "overrun":
        return step
    return step._replace(good=Result(0), model=Result(0))


def _named(step: Expected, action: Action) -> Expected:
    """The check of a KVM_RUN bears its own line where the program has no line for its end."""
    return step if isinstance(step.op, run.KvmRunReturns) else action.expected[0]


def _exit(action: Action, entry: sc.Run) -> str:
    """The exit that is expected, "" if nothing is."""
    if entry.end == sc.DONE:
        return "EXIT_DONE"
    if entry.end in (sc.SIGNAL, sc.NEVER_ENTERED):
        return "-EINTR"
    wanted = _ret(action.last)
    if wanted in _EXITS:
        return _EXITS[str(wanted)]
    return "EXIT_OUT" if entry.end == sc.OUT else "EXIT_HLT"


def _watched(step: Expected, asked: int = 0) -> int:
    """The components of a task's image that are looked at: C code uses the others as it likes."""
    wanted = step.wanted
    held = (
        xf.mask_of(*(i for i, value in wanted.out.tokens if value)) if wanted and isinstance(wanted.out, Image) else 0
    )
    return _QUIET | held | asked


def _facility(number: int) -> str:
    return COMPONENTS[number] if number in (17, 18) else f"{number:#x}ULL" if number > 0xFFFF else str(number)


def _msr(index: int) -> str:
    return _MSRS.get(index, f"{index:#x}")


def _iov_len(asked: IovLen, whole: int = 0x10000) -> int:
    """The bytes of a tracer's buffer."""
    return asked.bytes_of(whole)


def _sw_reserved(op: signals.SigframeSwReserved) -> Iterator[str]:
    """struct _fpx_sw_bytes in C, and the second magic."""
    sw = op.sw
    if sw.magic2 is not None:
        yield f"move_magic2({sw.magic2});"
    values = {
        "magic1": None if sw.magic1 is None else FP_XSTATE_MAGIC1 if sw.magic1 else 0,
        "extended_size": sw.extended_size,
        "xfeatures": sw.xfeatures,
        "xstate_size": sw.xstate_size,
    }
    for name, value in values.items():
        if value is not None:
            yield f"sw_reserved()->{name} = {value:#x};"


def _entries(op: kvm.KvmSetCpuid2) -> str:
    entries = op.entries
    fields = [f".xcr0 = {entries.xcr0:#x}"]
    fields += [f".{name} = {value:#x}" for name in ("xss", "leaves", "other") if (value := getattr(entries, name))]
    fields += [f".{name} = true" for name in ("xfd", "amx", "no_xsave", "no_xsaves") if getattr(entries, name)]
    return ", ".join(fields)
