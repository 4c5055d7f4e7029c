"""The languages of the console, from the ``.po`` files in ``locale``: another one is another folder there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from gettext import GNUTranslations, NullTranslations
from importlib import resources
from io import BytesIO

from babel import Locale
from babel.dates import format_date, format_datetime, format_time, format_timedelta
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_compact_decimal, format_currency, format_decimal, format_percent
from markupsafe import Markup, escape

from data_layer.console.words import OF_VALUES
from data_layer.schemas.doctor import VERBATIM, Filling, Text
from data_layer.web.conditions import qualities

DEFAULT = "en"
LANGUAGE_COOKIE = "console-language"
_NONE = "\N{EN DASH}"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True)
class Language:
    """A language: its texts, and how it writes numbers and times."""

    code: str
    translations: NullTranslations
    locale: Locale

    @property
    def name(self) -> str:
        """What the language calls itself."""
        return str(self.locale.get_display_name()).capitalize()

    def text(self, message: str, **values: object) -> str:
        """A message of this program; what is filled in is as it came, so templates must escape it."""
        translated = self.translations.gettext(message)
        return translated % values if values else translated

    def recorded(self, description: str) -> str:
        """What an entry of the audit trail says: ours are translated, those of applications stay as they are."""
        return self.text(description) if description else ""

    def sentence(self, text: Text) -> Markup:
        """What the doctor says; the words of others, such as servers, are marked as English."""
        values = {name: self._filling(value) for name, value in text.values.items()}
        sentence = escape(self.translations.gettext(text.template))
        if values:
            sentence %= values
        is_foreign = text.template == VERBATIM and self.code != DEFAULT
        return Markup('<span lang="en">{}</span>').format(sentence) if is_foreign else sentence

    def _filling(self, value: Filling) -> str:
        if isinstance(value, Text):
            return self.sentence(value)
        return value if isinstance(value, str) else self.number(value)

    def word(self, value: str, words: Mapping[str, str] | None = None) -> str:
        """The word for what a service names in code; the name itself where there is none.

        Args:
            value: a member of an enumeration, or another name.
            words: the English ones; by default those of the enumeration.
        """
        known: Mapping[str, str] = (
            OF_VALUES[type(value)] if words is None and isinstance(value, StrEnum) else words or {}
        )
        return self.text(known[value]) if value in known else value

    def words(self, words: Mapping[str, str]) -> dict[str, str]:
        """All of some words, for scripts."""
        return {name: self.text(word) for name, word in words.items()}

    def ago(self, moment: datetime | None) -> str:
        """How long ago, or in how long."""
        if moment is None:
            return ""
        return str(format_timedelta(moment - datetime.now(UTC), add_direction=True, locale=self.locale))

    def moment(self, moment: datetime | None) -> str:
        """Date and time of UTC."""
        return "" if moment is None else f"{format_datetime(moment, 'medium', locale=self.locale)} UTC"

    def minute(self, moment: datetime) -> str:
        """The time of day, of UTC."""
        return str(format_time(moment, "HH:mm", tzinfo=UTC, locale=self.locale))

    def milliseconds(self, value: float | None) -> str:
        """A duration; a dash where there is none."""
        return _NONE if value is None else f"{self.number(round(value, 2))} ms"

    def day(self, day: date) -> str:
        """A date without its year."""
        return str(format_date(day, "d MMM", locale=self.locale))

    def number(self, value: float | Decimal | None) -> str:
        """A number in full; a dash where there is none."""
        return _NONE if value is None else str(format_decimal(value, locale=self.locale))

    def compact(self, value: float) -> str:
        """A number in short, such as 12K."""
        return str(format_compact_decimal(value, locale=self.locale, fraction_digits=1))

    def percent(self, share: float | None) -> str:
        """A share of one."""
        return _NONE if share is None else str(format_percent(share, "#,##0.#%", locale=self.locale))

    def money(self, amount: Decimal, currency: str) -> str:
        """An amount: cents from one unit on, else as many places as matter."""
        if amount == 0 or abs(amount) >= 1:
            return str(format_currency(amount, currency, locale=self.locale))
        pattern = self.locale.currency_formats["standard"].pattern.replace("0.00", "0.00##")
        return str(format_currency(amount, currency, pattern, locale=self.locale, currency_digits=False))

    def size(self, size: int | None) -> str:
        """Bytes in the largest fitting unit."""
        if size is None:
            return _NONE
        value, unit = float(size), 0
        while value >= 1024 and unit < len(_UNITS) - 1:
            value, unit = value / 1024, unit + 1
        digits = "0" if unit == 0 or value >= 100 else "0.0"
        return f"{format_decimal(value, digits, locale=self.locale)} {_UNITS[unit]}"


class Languages:
    """All languages, read once."""

    def __init__(self) -> None:
        self._all = {DEFAULT: Language(DEFAULT, NullTranslations(), Locale.parse(DEFAULT))}
        for folder in resources.files("data_layer.console").joinpath("locale").iterdir():
            if folder.is_dir():
                with folder.joinpath("LC_MESSAGES", "console.po").open("rb") as file:
                    catalog = read_po(file, locale=folder.name)
                compiled = BytesIO()
                write_mo(compiled, catalog)
                compiled.seek(0)
                self._all[folder.name] = Language(folder.name, GNUTranslations(compiled), Locale.parse(folder.name))

    @property
    def all(self) -> Mapping[str, Language]:
        """The languages by their codes."""
        return self._all

    def choose(self, chosen: str | None, accept_language: str | None) -> Language:
        """The one that a person has chosen here, else the one that their browser wants most."""
        if chosen in self._all:
            return self._all[chosen]
        wanted = qualities(accept_language)
        for name in sorted(wanted, key=lambda name: -wanted[name]):
            code = name.partition("-")[0]
            if wanted[name] > 0 and code in self._all:
                return self._all[code]
        return self._all[DEFAULT]
