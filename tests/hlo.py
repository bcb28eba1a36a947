"""Reading compiled programs: the instructions that a loop runs."""

import re
from collections import Counter

FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}  # no work at run time
CALLS = {"while", "conditional", "call", "async-start"}


def loop_instructions(text: str) -> Counter[str]:
    """The instructions in the body of the outermost while loop of a compiled module, by name.

    Branches, inner loops and called computations are counted in, once each; the inside of a fusion is not, because a
    fusion is one kernel.
    """
    computations, entry = _computations(text)
    lines = computations[entry]
    for line in lines.copy():  # from jaxlib 0.12 on a small loop stands alone in a call
        alone = re.search(r"to_apply=%?(while[\w.\-]*_computation)", line)
        lines += computations[alone[1]] if alone else []
    (body,) = (match[1] for line in lines if (match := re.search(r" while\(.*body=%?([\w.\-]+)", line)))
    return _count(body, computations)


def _count(name: str, computations: dict[str, list[str]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for line in computations[name]:
        code = _opcode(line)
        if code not in FREE:
            found[code] += 1
        if code in CALLS and "xla_cpu_small_call" not in line:  # with which a call is one kernel
            called = re.findall(
                r"(?:body|condition|true_computation|false_computation|to_apply|calls)=%?([\w.\-]+)", line
            )
            branches = re.search(r"branch_computations=\{(.*?)\}", line)
            called += [part.strip().lstrip("%") for part in branches[1].split(",")] if branches else []
            for inner in called:
                found += _count(inner, computations)
    return found


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    computations: dict[str, list[str]] = {}
    name, entry = None, ""
    for line in text.splitlines():
        head = re.match(r"^(ENTRY )?%?([\w.\-]+) .*\{$", line)
        if head:
            name = head[2]
            computations[name] = []
            entry = name if head[1] else entry
        elif line.startswith("}"):
            name = None
        elif name and " = " in line:
            computations[name].append(line.strip())
    return computations, entry


def _opcode(line: str) -> str:
    right = re.sub(r"/\*.*?\*/", "", line.split(" = ", 1)[1])
    match = re.search(r"(?:^|\s)([a-z][\w\-]*)\(", right)
    assert match, line
    return match[1]
