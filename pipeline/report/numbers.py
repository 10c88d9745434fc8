"""Numbers as a reader wants them: few digits, a unit, a dash for what is unknown."""

from pipeline.core.progress import describe_bytes

MISSING = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
SPACE = "\N{NO-BREAK SPACE}"


def decimal(value: float | None, decimals: int = 1) -> str:
    """A number, such as an average precision in percent, to some decimals."""
    return MISSING if value is None else f"{value:,.{decimals}f}"


def signed(value: float | None) -> str:
    """A difference to one decimal, with its sign; what rounds to zero has none."""
    if value is None:
        return MISSING
    text = f"{abs(value):.1f}"
    sign = "" if not float(text) else "+" if value > 0 else MINUS
    return sign + text


def direction(value: float | None) -> str:
    """Whether a difference is a gain: ``better``, ``worse`` or ``same``."""
    shown = 0.0 if value is None else round(value, 1)
    return "better" if shown > 0 else "worse" if shown < 0 else "same"


def significant(value: float | None, digits: int = 2) -> str:
    """A small number to ``digits`` significant digits."""
    return MISSING if value is None else f"{value:.{digits}g}"


def size(value: float) -> str:
    """Bytes, in powers of 1,000, three digits."""
    return describe_bytes(value).replace(" ", SPACE)


def duration(seconds: float | None) -> str:
    """A time in its two largest units."""
    if seconds is None:
        return MISSING
    if seconds < 60:
        return f"{seconds:.{1 if seconds < 10 else 0}f}{SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{SPACE}min {rest}{SPACE}s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}{SPACE}h {minutes}{SPACE}min"


def share(part: float | None, whole: float = 1) -> str:
    """Percent, two significant digits."""
    return MISSING if part is None or not whole else f"{100 * part / whole:.2g}{SPACE}%"


FUNCTIONS = (decimal, signed, direction, significant, size, duration, share)
FILTERS = {function.__name__: function for function in FUNCTIONS}
"""The template's filters."""
