"""Personal data that has a form by which it is known: mail addresses, IP addresses, international phone numbers.

What takes their place is reserved for examples, as in FineWeb (arXiv 2406.17557), so that a text still reads as it did
and masking twice changes nothing more.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable

EMAIL = "email@example.com"
IP4, IP6 = "192.0.2.1", "2001:db8::1"  # RFC 5737, RFC 3849
PHONE = "+1 202 555 0100"  # 555-0100 to 555-0199 belong to nobody
MIN_PHONE_DIGITS, MAX_PHONE_DIGITS = 8, 15
"""ITU-T E.164: at most 15; shorter ones than 8 are more likely sums."""

_EMAIL = re.compile(
    r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}\b"
)
_IP4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)")
_IP6 = re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
_PHONE = re.compile(r"(?<![\w+])\+[1-9](?:[ ().-]{0,2}\d){7,14}(?!\d)")


def mask_pii(text: str) -> tuple[str, Counter[str]]:
    """The text with masks, and how many of each kind were put.

    Only public IP addresses are masked: 127.0.0.1 is nobody's. Numbers without a leading + are left alone, since
    nothing tells them from other numbers.
    """
    found: Counter[str] = Counter()
    if "@" in text:
        text = _EMAIL.sub(_masking(EMAIL, "e-mail addresses masked", found, lambda _: True), text)
    text = _IP4.sub(_masking(IP4, "IP addresses masked", found, _is_public), text)
    if "::" in text or text.count(":") >= 7:
        text = _IP6.sub(_masking(IP6, "IP addresses masked", found, _is_public), text)
    if "+" in text:
        text = _PHONE.sub(_masking(PHONE, "phone numbers masked", found, _is_phone), text)
    return text, found


def _masking(
    mask: str, kind: str, found: Counter[str], is_meant: Callable[[str], bool]
) -> Callable[[re.Match[str]], str]:
    def replace(match: re.Match[str]) -> str:
        if match[0] == mask or not is_meant(match[0]):
            return match[0]
        found[kind] += 1
        return mask

    return replace


def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def _is_phone(number: str) -> bool:
    return MIN_PHONE_DIGITS <= sum(map(str.isdigit, number)) <= MAX_PHONE_DIGITS
