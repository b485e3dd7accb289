"""How well two colours are told apart, by the Web Content Accessibility Guidelines (https://www.w3.org/TR/WCAG22/)."""

from matplotlib.colors import to_rgb

LEAST_OF_GRAPHICS = 3  # 1.4.11, graphical objects
LEAST_OF_TEXT = 4.5  # 1.4.3, text


def contrast(one: object, other: object) -> float:
    """The "contrast ratio" of two of matplotlib's colours, from 1 for none to 21 for black on white."""
    darker, lighter = sorted([luminance(one), luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)


def luminance(color: object) -> float:
    """The "relative luminance" of one of matplotlib's colours, from 0 for black to 1 for white."""
    red, green, blue = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in to_rgb(color)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
