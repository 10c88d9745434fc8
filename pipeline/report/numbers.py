"""Numbers as a reader wants them: few digits, a unit, a dash for what is unknown."""

from pipeline.core.progress import describe_bytes

MISSING = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
THIN_SPACE = "\N{NARROW NO-BREAK SPACE}"
SPACE = "\N{NO-BREAK SPACE}"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def percent(value: float | None) -> str:
    """Average precision: one decimal."""
    return MISSING if value is None else f"{value:.1f}"


def signed(value: float | None, decimals: int = 1) -> str:
    """A difference, with its sign; what rounds to zero has none."""
    if value is None:
        return MISSING
    text = f"{abs(value):.{decimals}f}"
    if not float(text):
        return text
    return f"{'+' if value > 0 else MINUS}{text}"


def direction(value: float | None) -> str:
    """Whether a difference is a gain: ``better``, ``worse`` or ``same``."""
    shown = 0.0 if value is None else round(value, 1)
    return "better" if shown > 0 else "worse" if shown < 0 else "same"


def count(value: float) -> str:
    """A whole number in groups of three digits."""
    return f"{value:,.0f}".replace(",", THIN_SPACE)


def mean(value: float) -> str:
    """A mean of counts: one decimal below 100."""
    return f"{value:.1f}" if value < 100 else count(value)


def significant(value: float | None, digits: int = 2) -> str:
    """A small number to ``digits`` significant digits."""
    if value is None:
        return MISSING
    mantissa, _, exponent = f"{value:.{digits}g}".partition("e")
    if not exponent:
        return mantissa.replace("-", MINUS)
    power = str(int(exponent)).translate(SUPERSCRIPTS)
    return f"{mantissa.replace('-', MINUS)}\N{MULTIPLICATION SIGN}10{power}"


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


def millions(value: int | None) -> str:
    """A number of parameters."""
    if value is None:
        return MISSING
    return f"{value / 1e6:.2f}{SPACE}M" if value < 10e6 else f"{value / 1e6:.1f}{SPACE}M"


def fold(value: float) -> str:
    """How many times."""
    return f"{value:.{0 if value >= 10 else 2}f}\N{MULTIPLICATION SIGN}"


def share(part: float | None, whole: float = 1) -> str:
    """Percent, two significant digits."""
    return MISSING if part is None or not whole else f"{100 * part / whole:.2g}{SPACE}%"


FUNCTIONS = (percent, signed, direction, count, mean, significant, size, duration, millions, fold, share)
FILTERS = {function.__name__: function for function in FUNCTIONS}
"""The template's filters."""
