"""What a difference between two clocks means."""

from __future__ import annotations

from data_layer.services.doctor.checks import Verdict, failed, ok, warning

# Sessions and signed URLs are good to the second; a minute is what the signatures of S3 URLs are made to bear.
_SUSPICIOUS_SECONDS = 5.0
_HARMFUL_SECONDS = 60.0


def judge_difference(difference: float, uncertainty: float, whose: str) -> Verdict:
    """Judge by how many seconds a server's clock is ahead of this machine's, known to within ``uncertainty``."""
    certain = max(0.0, abs(difference) - uncertainty)
    where = "ahead of" if difference > 0 else "behind"
    meaning = f"{whose} clock is {abs(difference):.1f} s {where} this machine's"
    if certain > _HARMFUL_SECONDS:
        return failed(
            f"{meaning}: sessions, tokens and signed URLs end at the wrong time or are refused",
            "have both kept by NTP, for example with chrony",
        )
    if certain > _SUSPICIOUS_SECONDS:
        return warning(meaning, "have both kept by NTP, for example with chrony")
    return ok(f"{whose} clock agrees with this machine's, to within {max(abs(difference), uncertainty):.2f} s")
