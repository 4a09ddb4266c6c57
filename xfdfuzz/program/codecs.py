"""How a program writes and reads the values of op fields: one codec per field type (:mod:`xfdfuzz.program.fields`).

ctypes cuts values to size without a word, so reading checks every range here.  Writing does not: ops that were read, or
drawn by the strategies, fit.
"""
# ruff: noqa: D102 (write() and read() say what they are in the base class)

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from operator import attrgetter
from typing import Any, ClassVar, Generic, TypeVar

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import LEAF_FEATURES, WHOLE_LEAVES
from xfdfuzz.arch.registers import (
    CET_MSRS,
    MSR_IA32_INT_SSP_TAB,
    MSR_IA32_PL0_SSP,
    MSR_IA32_PL1_SSP,
    MSR_IA32_PL2_SSP,
    MSR_IA32_PL3_SSP,
    MSR_IA32_S_CET,
    MSR_IA32_U_CET,
    MSR_IA32_XFD,
    MSR_IA32_XFD_ERR,
    MSR_IA32_XSS,
)
from xfdfuzz.kernel.fpu.signal import FP_XSTATE_MAGIC1
from xfdfuzz.kernel.kvm.cpuid import CpuidEntries
from xfdfuzz.kernel.kvm.msrs import MSR_KVM_INTERNAL_GUEST_SSP
from xfdfuzz.kernel.kvm.xsave import UserBuffer
from xfdfuzz.kernel.machine import MAX_CPUS
from xfdfuzz.kernel.state import (
    MP_STATE_NAMES,
    NR_SIGFRAMES,
    NR_VCPUS,
    NR_VMS,
    USER_TASKS,
    VECTORS,
    VM_X86_SEV_ES_VM,
    VM_X86_SNP_VM,
    VM_X86_TDX_VM,
)
from xfdfuzz.program.fields import (
    BEYOND,
    NULL_FPSTATE,
    OWN,
    RESERVED,
    TOKENS,
    UNALIGNED,
    ZERO,
    Cr4,
    Events,
    FpuChange,
    FpuImage,
    ImageChange,
    IovLen,
    Mapped,
    Meant,
    Msrs,
    Nested,
    Sregs,
    SsSize,
    Switch,
    SwReserved,
    Undefined,
    UserImage,
)
from xfdfuzz.program.syntax import Argument, Dict, Entry, Names, Option, Unreadable, Word, any_of, did_you_mean

T = TypeVar("T")

_U64 = range(1 << 64)
_NUMBER = re.compile(r"0x[0-9a-fA-F]{1,16}|-?(?:0|[1-9][0-9]{0,19})")


def number(text: str) -> int | None:
    """A number in decimal, or in hexadecimal after ``0x``; None if it is not one."""
    return int(text, 0) if _NUMBER.fullmatch(text) else None


class Codec(Generic[T]):
    """Writes and reads one type of field.  ``expected`` names its values in messages.

    A field that may be left out says in ``optional`` how it is written; it is left out, with the comma or space before
    it, where ``write`` gives an empty text.  One that is written ``name=value`` has its names in ``options``; a
    ``word`` stands outside of parentheses.
    """

    expected: str
    optional: str = ""
    options: tuple[str, ...] = ()
    word: bool = False

    def write(self, value: T) -> str:
        """The argument's text."""
        raise NotImplementedError

    def read(self, argument: Argument) -> T:
        """The argument's value; raises :class:`Unreadable` if it does not fit."""
        raise NotImplementedError


@dataclass(frozen=True)
class Scalar(Codec[int]):
    """A number out of ``numbers``, or one of the named ones.  It is written by name if it has one, else to ``base``."""

    expected: str
    numbers: range
    base: int = 10
    names: Mapping[int, str] = field(default_factory=dict)

    def write(self, value: int) -> str:
        if value in self.names:
            return self.names[value]
        return hex(value) if self.base == 16 and value else str(value)

    def read(self, argument: Argument) -> int:
        if isinstance(argument, Names) and len(argument.words) == 1:
            return self.read_word(argument.words[0])
        raise Unreadable(argument.column, self.expected)

    def read_word(self, word: Word) -> int:
        """The value of a single word; raises :class:`Unreadable`."""
        for value, name in self.names.items():
            if word.text == name:
                return value
        value_or_none = number(word.text)
        if value_or_none is None or value_or_none not in self.numbers:
            raise Unreadable(word.column, self.expected)
        return value_or_none


class XfeaturesCodec(Codec[int]):
    """``x87|sse|avx|0x4000000000000000``."""

    known: ClassVar[list[str]] = [*xf.NAMES.values(), *xf.GROUPS]
    #: What others call them, which is read, too: the kernel (XFEATURE_FP, XFEATURE_YMM), manuals.
    also: ClassVar[dict[str, str]] = {"fp": "x87", "xmm": "sse", "ymm": "avx", "amx": "xtile"}
    expected = f"state components joined by '|' ({', '.join(known)}), 0 or a 64-bit number"

    def write(self, value: int) -> str:
        return xf.format_mask(value)

    def read(self, argument: Argument) -> int:
        if not isinstance(argument, Names):
            raise Unreadable(argument.column, self.expected)
        mask = 0
        for word in argument.words:
            bits = xf.mask_by_name(self.also.get(word.text, word.text))
            if bits is None:
                bits = number(word.text)
            if bits is None or bits not in _U64:
                raise Unreadable(word.column, self.expected + did_you_mean(word.text, self.known))
            mask |= bits
        return mask

    def in_text(self, text: str) -> int | None:
        """The mask that ``x87|sse`` is, or a number; None if it is none."""
        try:
            return self.read(Names(tuple(Word(word.strip(), 0) for word in text.split("|"))))
        except Unreadable:
            return None


class MsrDataCodec(Scalar):
    """What an MSR gets: a number, or for a mask the names of its components."""

    def read(self, argument: Argument) -> int:
        try:
            return XFEATURES.read(argument)
        except Unreadable as error:
            raise Unreadable(error.column, self.expected) from None


class MsrsCodec(Codec[Msrs]):
    """``{IA32_XFD: 0x40000, IA32_XFD_ERR: 0}``; order and repetition count."""

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f"{{MSR: value, ...}}, where MSR is {MSR.expected}"

    def write(self, value: Msrs) -> str:
        return f"{{{', '.join(f'{MSR.write(index)}: {HEX.write(data)}' for index, data in value.entries)}}}"

    def read(self, argument: Argument) -> Msrs:
        if not isinstance(argument, Dict):
            raise Unreadable(argument.column, self.expected)
        return Msrs(tuple(self._entry(entry) for entry in argument.entries))

    def _entry(self, entry: Entry) -> tuple[int, int]:
        index = MSR.read_word(entry.key)
        if entry.value is None:
            raise Unreadable(entry.key.column, f"{entry.key.text}: value")
        return index, (HEX if index in CET_MSRS else MSR_DATA).read(entry.value)


class Record(Codec[T]):
    """A dict with fixed keys in any order, each once.

    None of ``values`` is left out but those in ``zero``, while they are 0; ``flags`` are there if they are set.
    """

    def __init__(
        self,
        make: Callable[..., T],
        values: dict[str, Codec[int]],
        flags: tuple[str, ...] = (),
        zero: tuple[str, ...] = (),
    ) -> None:
        self.make = make
        self.values = values
        self.flags = flags
        self.zero = zero
        self.expected = f"{{{', '.join((*(f'{key}: ...' for key in values if key not in zero), *flags))}}}"

    def write(self, value: T) -> str:
        held = {key: getattr(value, key) for key in self.values}
        entries = [f"{key}: {self.values[key].write(held[key])}" for key in held if key not in self.zero or held[key]]
        return f"{{{', '.join(entries + [flag for flag in self.flags if getattr(value, flag)])}}}"

    def read(self, argument: Argument) -> T:
        if not isinstance(argument, Dict):
            raise Unreadable(argument.column, self.expected)
        found: dict[str, int] = {}
        for entry in argument.entries:
            key = entry.key.text
            if key in found:
                raise Unreadable(entry.key.column, f"{key} only once")
            found[key] = self._entry(entry)
        if not self.values.keys() - set(self.zero) <= found.keys():
            raise Unreadable(argument.column, self.expected)
        return self.make(**dict.fromkeys(self.flags, False) | found)

    def _entry(self, entry: Entry) -> int:
        key = entry.key.text
        if key in self.values:
            if entry.value is None:
                raise Unreadable(entry.key.column, f"{key}: {self.values[key].expected}")
            return self.values[key].read(entry.value)
        if key not in self.flags:
            raise Unreadable(entry.key.column, any_of([*self.values, *self.flags]))
        if entry.value is not None:
            raise Unreadable(entry.value.column, f"no value after {key}")
        return True


class EventsCodec(Record[Events]):
    """Of whether an INIT is latched one thing at most is said."""

    def read(self, argument: Argument) -> Events:
        found = super().read(argument)
        if found.latched_init and found.no_latched_init:
            raise Unreadable(argument.column, "latched_init or no_latched_init, not both")
        return found


class ImageCodec(Codec[T]):
    """An image: first its header's ``mask``, if it has one, then contents, then what else the header has.

    ``data`` is what all components hold that ``components`` does not name one by one; 0 is left out.  Programs of
    before are read as well: ``init: <mask>`` for components that hold 0, ``mxcsr`` for one with reserved bits, and of
    an image without a header its ``data`` alone.
    """

    def __init__(self, make: Callable[..., T], components: Mapping[int, str], header: bool) -> None:
        self.make = make
        self.components = {name: i for i, name in components.items()}
        self.header = header
        more = ", xcomp_bv: ..., reserved" if header else ""
        self.expected = f"{{{'xstate_bv: ..., ' if header else ''}data: ..., <component>: ..., mxcsr: ...{more}}}"

    def write(self, value: Any) -> str:
        names = {i: name for name, i in self.components.items()}
        entries = [f"xstate_bv: {XFEATURES.write(value.xstate_bv)}"] if self.header else []
        entries += [f"data: {value.data}"] * bool(value.data)
        entries += [f"{names[i]}: {_of(i).write(held)}" for i, held in value.contents]
        if self.header and value.xcomp_bv:
            entries.append(f"xcomp_bv: {XFEATURES.write(value.xcomp_bv)}")
        entries += ["reserved"] * (self.header and value.reserved)
        return f"{{{', '.join(entries)}}}"

    def read(self, argument: Argument) -> T:
        if not isinstance(argument, Dict):
            return self._alone(argument)
        found: dict[str, Any] = {}
        contents: dict[int, int] = {}
        for entry in argument.entries:
            key = entry.key.text
            if key == "init":
                initial = xf.components_in(self._value(entry, XFEATURES))
                contents |= dict.fromkeys((i for i in initial if i in self.components.values()), 0)
                continue
            if key in found or self.components.get(key, -1) in contents:
                raise Unreadable(entry.key.column, f"{key} only once")
            if key in self.components:
                contents[self.components[key]] = self._value(entry, _of(self.components[key]))
            else:
                found[key] = self._field(entry)
        if self.header and "xstate_bv" not in found:
            raise Unreadable(argument.column, self.expected)
        return self.make(**found, contents=tuple(sorted(contents.items())))

    def _alone(self, argument: Argument) -> T:
        try:
            data = 0 if self.header else TOKEN.read(argument)
        except Unreadable:
            data = 0
        if not data:
            raise Unreadable(argument.column, self.expected)
        return self.make(data=data)

    def _field(self, entry: Entry) -> int:
        """What an entry says that names no component."""
        key = entry.key.text
        values = {"data": TOKEN} | ({"xstate_bv": XFEATURES, "xcomp_bv": XFEATURES} if self.header else {})
        if key in values:
            return self._value(entry, values[key])
        if key != "reserved" or not self.header:
            known = [*values, *self.components, *["reserved"] * self.header]
            raise Unreadable(entry.key.column, any_of(known) + did_you_mean(key, known))
        if entry.value is not None:
            raise Unreadable(entry.value.column, f"no value after {key}")
        return True

    def _value(self, entry: Entry, codec: Codec[int]) -> int:
        if entry.value is None and codec is MXCSR:
            return RESERVED
        if entry.value is None:
            raise Unreadable(entry.key.column, f"{entry.key.text}: {codec.expected}")
        return codec.read(entry.value)


class ChangeCodec(ImageCodec[T]):
    """``{xstate_bv: +sse|-avx, sse: 2}``: what is changed of an image, behind an op's parentheses.

    A mask without signs is what XSTATE_BV becomes.
    """

    word = True

    def __init__(self, make: Callable[..., T], components: Mapping[int, str], header: bool, optional: bool) -> None:
        super().__init__(make, components, header)
        self.expected = f"{{{'xstate_bv: +<component>|-<component>, ' if header else ''}<component>: ..., mxcsr: ...}}"
        self.optional = "{<component>: <contents>, ...}" if optional else ""

    def write(self, value: Any) -> str:
        if not any(value):
            return "" if self.optional else "{}"
        names = {i: name for name, i in self.components.items()}
        entries = [f"xstate_bv: {self._bits(value)}"] if self.header and value.clear | value.set else []
        entries += [f"{names[i]}: {_of(i).write(held)}" for i, held in value.contents]
        return f"{{{', '.join(entries)}}}"

    def _bits(self, value: ImageChange) -> str:
        if value.clear == xf.U64_MAX:
            return XFEATURES.write(value.set)
        signed = (("+", value.set), ("-", value.clear))
        return "|".join(sign + name for sign, mask in signed if mask for name in XFEATURES.write(mask).split("|"))

    def read(self, argument: Argument) -> T:
        if not isinstance(argument, Dict):
            raise Unreadable(argument.column, self.expected)
        found: dict[str, int] = {}
        contents: dict[int, int] = {}
        for entry in argument.entries:
            key = entry.key.text
            if self.components.get(key, -1) in contents or (key == "xstate_bv" and found):
                raise Unreadable(entry.key.column, f"{key} only once")
            if key in self.components:
                contents[self.components[key]] = self._value(entry, _of(self.components[key]))
            elif key == "xstate_bv" and self.header:
                found = self._read_bits(entry)
            else:
                known = [*["xstate_bv"] * self.header, *self.components]
                raise Unreadable(entry.key.column, any_of(known) + did_you_mean(key, known))
        return self.make(**found, contents=tuple(sorted(contents.items())))

    def _read_bits(self, entry: Entry) -> dict[str, int]:
        if entry.value is None:
            raise Unreadable(entry.key.column, f"xstate_bv: {XFEATURES.expected}")
        signs = {word.text[:1] if word.text[:1] in "+-" else "" for word in entry.value.words}
        if signs == {""}:
            return {"clear": xf.U64_MAX, "set": XFEATURES.read(entry.value)}
        if "" in signs:
            raise Unreadable(entry.value.column, "a sign, + or -, before each component or before none")
        masks = dict.fromkeys("+-", 0)
        for word in entry.value.words:
            masks[word.text[0]] |= XFEATURES.read(Names((Word(word.text[1:], word.column + 1),)))
        if masks["+"] & masks["-"]:
            raise Unreadable(entry.value.column, "each component with one sign")
        return {"clear": masks["-"], "set": masks["+"]}


def _of(i: int) -> Scalar:
    """What writes and reads the contents of a component, or of MXCSR."""
    return {xf.MXCSR: MXCSR, xf.X87: CONTENTS}.get(i, ZEROS)


class _Contents(Scalar):
    """``init`` was written as 0 before."""

    def read_word(self, word: Word) -> int:
        return 0 if word.text == "zero" and ZERO not in self.names else super().read_word(word)


class _Magic1(Scalar):
    """Whether it is FP_XSTATE_MAGIC1, which is read as a number, too (arch/x86/include/uapi/asm/sigcontext.h)."""

    def read_word(self, word: Word) -> int:
        return 1 if number(word.text) == FP_XSTATE_MAGIC1 else super().read_word(word)


class SwReservedCodec(Codec[SwReserved]):
    """``{magic1: 0, magic2: 512}``: what is not there stays as it is."""

    def __init__(self) -> None:
        size = Scalar("a number from 0 to 4294967295", range(1 << 32))
        self.values: dict[str, Codec[int]] = dict.fromkeys(SwReserved._fields, size)
        self.values |= {"magic1": _Magic1("0 or 1", range(2)), "xfeatures": XFEATURES}
        self.expected = f"{{{', '.join(f'{name}: ...' for name in self.values)}}}"

    def write(self, value: SwReserved) -> str:
        held = value._asdict().items()
        return f"{{{', '.join(f'{name}: {self.values[name].write(it)}' for name, it in held if it is not None)}}}"

    def read(self, argument: Argument) -> SwReserved:
        if not isinstance(argument, Dict):
            raise Unreadable(argument.column, self.expected)
        found: dict[str, int] = {}
        for entry in argument.entries:
            key = entry.key.text
            if key not in self.values:
                raise Unreadable(entry.key.column, any_of([*self.values]) + did_you_mean(key, [*self.values]))
            if key in found:
                raise Unreadable(entry.key.column, f"{key} only once")
            if entry.value is None:
                raise Unreadable(entry.key.column, f"{key}: {self.values[key].expected}")
            found[key] = self.values[key].read(entry.value)
        return SwReserved(**found)


class UndefinedCodec(Codec[Undefined]):
    """``undefined=7``; left out when it is 0.  The variable that it stands for is a C int."""

    expected = "undefined=N, where N is a 32-bit signed number"
    optional = "undefined=<n>"
    options = ("undefined",)
    value = Scalar(expected, range(-1 << 31, 1 << 31))

    def write(self, value: Undefined) -> str:
        return f"undefined={value.value}" if value.value else ""

    def read(self, argument: Argument) -> Undefined:
        if not isinstance(argument, Option) or argument.name.text != "undefined":
            raise Unreadable(argument.column, self.expected)
        return Undefined(self.value.read_word(argument.value))


class XcompBvCodec(Codec[int]):
    """``xcomp_bv=0x8000000000000007``; left out in the standard format, where it is 0."""

    expected = "xcomp_bv=N, where N is a 64-bit number"
    optional = "xcomp_bv=<value>"
    options = ("xcomp_bv",)

    def write(self, value: int) -> str:
        return f"xcomp_bv={HEX.write(value)}" if value else ""

    def read(self, argument: Argument) -> int:
        if not isinstance(argument, Option) or argument.name.text != "xcomp_bv":
            raise Unreadable(argument.column, self.expected)
        return HEX.read_word(argument.value)


class MxcsrCodec(Codec[int]):
    """``mxcsr=3``, ``mxcsr=zero``, ``mxcsr=reserved``; left out when it is initial."""

    expected = f"mxcsr=N, where N is init, zero, a token up to {TOKENS}, or reserved"
    optional = "mxcsr=<contents>"
    options = ("mxcsr",)

    def write(self, value: int) -> str:
        return f"mxcsr={MXCSR.write(value)}" if value else ""

    def read(self, argument: Argument) -> int:
        if not isinstance(argument, Option) or argument.name.text != "mxcsr":
            raise Unreadable(argument.column, self.expected)
        return MXCSR.read_word(argument.value)


class NumberOption(Codec[T]):
    """``flags=1``, ``iov_len=4096``: a number of 32 bits that has a name; left out for the ``usual`` value.

    ``make`` makes a value of a number, ``number`` a number of a value; ``what`` it is a number of, in messages, and
    ``last`` the largest.
    """

    def __init__(
        self,
        name: str,
        usual: T,
        make: Callable[[int], T],
        number: Callable[[T], int],
        what: str = "",
        last: int = (1 << 32) - 1,
        step: int = 1,
    ) -> None:
        self.name, self.usual, self.make, self.number = name, usual, make, number
        of_step = f" that {step} divides," if step > 1 else ""
        self.expected = f"{name}=N, where N is a number{what}{of_step} from 0 to {last}"
        self.optional = f"{name}=<n>"
        self.options = (name,)
        self.value = Scalar(self.expected, range(0, last + 1, step))

    def write(self, value: T) -> str:
        return "" if value == self.usual else f"{self.name}={self.number(value)}"

    def read(self, argument: Argument) -> T:
        if not isinstance(argument, Option) or argument.name.text != self.name:
            raise Unreadable(argument.column, self.expected)
        return self.make(self.value.read_word(argument.value))


def _option_of_size(name: str, kind: Callable[..., T]) -> NumberOption[T]:
    """What writes and reads a size in bytes, of a kind that says nothing without one."""
    return NumberOption(name, kind(), kind, attrgetter("size"), " of bytes")


class BufferCodec(Codec[UserBuffer]):
    """``buffer=4096`` or ``mapped=4096``; left out when the caller's memory is large enough for everything."""

    expected = "buffer=N or mapped=N, where N is a number of bytes from 0 to 4294967295"
    optional = "buffer=<n>"
    options = ("buffer", "mapped")
    value = Scalar(expected, range(1 << 32))

    def write(self, value: UserBuffer) -> str:
        if value.size is None:
            return ""
        return f"{'mapped' if value.guarded else 'buffer'}={value.size}"

    def read(self, argument: Argument) -> UserBuffer:
        if not isinstance(argument, Option) or argument.name.text not in ("buffer", "mapped"):
            raise Unreadable(argument.column, self.expected)
        return UserBuffer(self.value.read_word(argument.value), argument.name.text == "mapped")


class FrameCodec(Codec[int]):
    """``frame1`` or ``own``, a word outside of parentheses; left out for the innermost handler's frame."""

    expected = f"frame0 to frame{NR_SIGFRAMES - 1}, or own"
    optional = "frame<n>"
    word = True
    names: ClassVar[dict[str, int]] = {f"frame{nr}": nr for nr in range(NR_SIGFRAMES)} | {"own": OWN}

    def write(self, value: int) -> str:
        return next((name for name, nr in self.names.items() if nr == value), "")

    def read(self, argument: Argument) -> int:
        words = [word.text for word in argument.words] if isinstance(argument, Names) else []
        if len(words) == 1 and words[0] in self.names:
            return self.names[words[0]]
        raise Unreadable(argument.column, self.expected)


class SwitchCodec(Codec[bool]):
    """One word that stands for true; left out when it is false."""

    def __init__(self, word: str) -> None:
        self.expected = self.optional = word

    def write(self, value: bool) -> str:
        return self.expected if value else ""

    def read(self, argument: Argument) -> bool:
        if not isinstance(argument, Names) or [word.text for word in argument.words] != [self.expected]:
            raise Unreadable(argument.column, self.expected)
        return True


HEX = Scalar("a 64-bit number", _U64, base=16)
MSR_DATA = MsrDataCodec("a 64-bit number, or state components joined by '|'", _U64, base=16)
MSR_NAMES = {
    MSR_IA32_XFD: "IA32_XFD",
    MSR_IA32_XFD_ERR: "IA32_XFD_ERR",
    MSR_IA32_XSS: "IA32_XSS",
    MSR_IA32_U_CET: "IA32_U_CET",
    MSR_IA32_S_CET: "IA32_S_CET",
    MSR_IA32_PL0_SSP: "IA32_PL0_SSP",
    MSR_IA32_PL1_SSP: "IA32_PL1_SSP",
    MSR_IA32_PL2_SSP: "IA32_PL2_SSP",
    MSR_IA32_PL3_SSP: "IA32_PL3_SSP",
    MSR_IA32_INT_SSP_TAB: "IA32_INT_SSP_TAB",
}
MSR = Scalar(any_of(list(MSR_NAMES.values())), range(0), names=MSR_NAMES)
REG_NAMES = MSR_NAMES | {MSR_KVM_INTERNAL_GUEST_SSP: "SSP"}
CPUID_LEAF_NAMES = {leaf: hex(leaf) for leaf in (LEAF_FEATURES, *WHOLE_LEAVES)}
CPUID_LEAF = Scalar(
    f"{any_of(list(CPUID_LEAF_NAMES.values()))}: other leaves are not modelled", range(0), names=CPUID_LEAF_NAMES
)
VM_TYPE_NAMES = {
    VM_X86_SEV_ES_VM: "KVM_X86_SEV_ES_VM",
    VM_X86_TDX_VM: "KVM_X86_TDX_VM",
    VM_X86_SNP_VM: "KVM_X86_SNP_VM",
}
VM_TYPE = Scalar(any_of(list(VM_TYPE_NAMES.values())), range(0), names=VM_TYPE_NAMES)
MP_STATE = Scalar(any_of(list(MP_STATE_NAMES.values())), range(0), names=MP_STATE_NAMES)
VECTOR = Scalar(any_of(list(VECTORS.values())), range(0), names=VECTORS)
TOKEN = Scalar(f"a token from 1 to {TOKENS}", range(1, TOKENS + 1))
CONTENTS = _Contents(f"init, zero, or a token up to {TOKENS}", range(TOKENS + 1), names={0: "init", ZERO: "zero"})
MXCSR = _Contents(
    f"init, zero, a token up to {TOKENS}, or reserved",
    range(TOKENS + 1),
    names={0: "init", ZERO: "zero", RESERVED: "reserved"},
)
#: Of all others zeros are the initial configuration.
ZEROS = _Contents(f"init, or a token up to {TOKENS}", range(TOKENS + 1), names={0: "init"})
XFEATURES = XfeaturesCodec()
COUNT = Scalar("a number from 0 to 4294967295", range(1 << 32))
SMALL = Scalar("a number from 0 to 255", range(1 << 8))

#: By what marks the type of a field: the class, or the text in its ``Annotated``.  Words need no entry.
CODECS: dict[object, Codec[Any]] = {
    "xfeatures": XFEATURES,
    "msr data": MSR_DATA,
    "count": COUNT,
    "small": SMALL,
    "points": Scalar("a number from 1 to 255", range(1, 256)),
    "bit": Scalar("0 or 1", range(2)),
    "facility": Scalar(
        "XTILECFG, XTILEDATA, DYN2 or a 64-bit number",
        _U64,
        names={xf.XTILE_CFG: "XTILECFG", xf.XTILE_DATA: "XTILEDATA", xf.DYN2: "DYN2"},
    ),
    "msr": MSR,
    "one reg": Scalar(any_of(list(REG_NAMES.values())), range(0), names=REG_NAMES),
    "cpuid leaf": CPUID_LEAF,
    "vm type": VM_TYPE,
    "mp state": MP_STATE,
    "token": TOKEN,
    "pkru": Scalar(f"0, or a token up to {TOKENS}", range(TOKENS + 1)),
    "contents": CONTENTS,
    "sse contents": ZEROS,
    "xcomp_bv": XcompBvCodec(),
    "mxcsr": MxcsrCodec(),
    **{
        name: NumberOption(name, usual, int, int)
        for name, usual in (("index", 0), ("xcr", 0), ("nr_xcrs", 1), ("flags", 0))
    },
    "init2": NumberOption("init2", 1, int, int, last=1),
    "ssp": Scalar(
        f"a token from 1 to {TOKENS}, unaligned or beyond",
        range(1, TOKENS + 1),
        names={UNALIGNED: "unaligned", BEYOND: "beyond"},
    ),
    Msrs: MsrsCodec(),
    UserImage: ImageCodec(UserImage, xf.IN_IMAGES, header=True),
    CpuidEntries: Record(
        CpuidEntries,
        {
            "xcr0": XFEATURES,
            "xss": XFEATURES,
            "leaves": XFEATURES,
            "other": SMALL,
            "size": COUNT,
        },
        (
            *("xfd", "amx", "no_xsave", "no_xsaves", "no_xsaveopt", "no_xsavec", "no_xgetbv1"),
            *("no_palettes", "no_tmul", "no_shstk", "no_ibt"),
        ),
        ("xss", "leaves", "other", "size"),
    ),
    FpuImage: ImageCodec(FpuImage, {i: xf.CONTENTS[i] for i in xf.LEGACY}, header=False),
    ImageChange: ChangeCodec(ImageChange, xf.IN_IMAGES, header=True, optional=True),
    "frame change": ChangeCodec(ImageChange, xf.IN_IMAGES, header=True, optional=False),
    FpuChange: ChangeCodec(FpuChange, {i: xf.CONTENTS[i] for i in xf.LEGACY}, header=False, optional=True),
    Meant: ChangeCodec(Meant, xf.CONTENTS, header=False, optional=False),
    SwReserved: SwReservedCodec(),
    Sregs: Record(Sregs, {}, ("osxsave", "ts", "pke", "no_lme")),
    Cr4: Record(Cr4, {}, ("osxsave", "pke")),
    Events: EventsCodec(
        Events,
        {"injected": VECTOR, "pending": VECTOR},
        ("latched_init", "no_latched_init"),
        ("injected", "pending"),
    ),
    Nested: Record(Nested, {}, ("guest_mode", "intercept_nm")),
    Undefined: UndefinedCodec(),
    UserBuffer: BufferCodec(),
    IovLen: _option_of_size("iov_len", IovLen),
    SsSize: _option_of_size("ss_size", SsSize),
    Mapped: NumberOption("mapped", Mapped(), Mapped, attrgetter("size"), " of bytes", (1 << 32) - 64, 64),
    "legacy part": Scalar("x87, sse or mxcsr", range(0), names={i: xf.CONTENTS[i] for i in xf.LEGACY}),
    "shstk features": Scalar("shstk, wrss or all", range(0), names={1: "shstk", 2: "wrss", 3: "all"}),
    "fpstate": Scalar("NULL, or a number from 0 to 63", range(64), names={NULL_FPSTATE: "NULL"}),
    "frame": FrameCodec(),
}


@cache
def codec_of(marker: object) -> Codec[Any]:
    """What writes and reads the fields with that mark, for one mark always the same object."""
    return SwitchCodec(marker.word) if isinstance(marker, Switch) else CODECS[marker]


#: How many there are of what a prefix numbers: ``t0`` to ``t4``.
NUMBERED: dict[str, int] = {
    "t": USER_TASKS,
    "v": NR_VCPUS,
    "vm": NR_VMS,
    "cpu": MAX_CPUS,
    "frame": NR_SIGFRAMES,
}
