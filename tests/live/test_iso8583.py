"""ISO 8583 (jreactive-8583 at both ends): many requests at a time, codes of all kinds, calls of the host, card data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.live.javac import program
from tests.live.observed import Observed, observed

ISO8583 = 48
PORT = 9583
#: Bytes of a read that are seen: one of the host may take many messages.
MANY_MESSAGES = 8192
OK, TIMEOUT, SERVER_ERROR, CLIENT_ERROR, UNKNOWN = 0, 2, 3, 4, 5
STATUSES = {"00": OK, "05": CLIENT_ERROR, "51": CLIENT_ERROR, "91": SERVER_ERROR, "96": SERVER_ERROR}
#: What the host asks of the terminal, after its first message.
OF_THE_HOST = ("0800", "900001")
NOTIFICATION = ("0140", "000000")
UNANSWERED = ("0100", "000028")
#: Card number, tracks, holder and PIN, as the messages of any dialect write them.
SECRETS = ("4111222233334444", "25121015432154321", "CARDHOLDER", "PRIVATE-OF", "PINBLOCK", "50494e424c4f434b")
#: Bytes of a sign-on and its answer.
SIGN_ON = {"text": (67, 69), "bitmap": (39, 41), "packed": (33, 35)}


def attributes(row: dict[str, Any]) -> dict[str, str]:
    return dict(zip(row["attribute_names"], row["attribute_values"], strict=True))


@pytest.mark.parametrize("dialect", ["text", "bitmap", "packed"])
def test_every_message_has_the_answer_that_the_terminal_got(netns: str, tmp_path: Path, dialect: str) -> None:
    with observed(netns, tmp_path, payload_truncation=MANY_MESSAGES) as seen:
        lost = talk(seen, dialect, 0)
        assert {row["response_status"] for row in lost} == {UNKNOWN}
        assert {attributes(row)["unpaired"] for row in lost} <= {"connection ended", "observation ended"}


def test_a_request_that_waits_too_long_is_a_timeout(netns: str, tmp_path: Path) -> None:
    with observed(netns, tmp_path, payload_truncation=MANY_MESSAGES, tcp_request_timeout_s=5) as seen:
        lost = talk(seen, "text", 8)
        assert [(row["response_status"], attributes(row)["unpaired"]) for row in lost] == [(TIMEOUT, "timed out")] * 2


def talk(seen: Observed, dialect: str, seconds: int) -> list[dict[str, Any]]:
    """All that host and terminal say, compared; the request without an answer, as each end saw it.

    The terminal stays for so many seconds after the last answer.
    """
    ends = program("Iso8583", "iso8583", seen.folder)
    seen.start(*ends, "server", str(PORT), dialect, port=PORT)
    # Without stops: the host answers after times of its own, which the rows are compared with.
    printed = seen.run(*ends, "client", str(PORT), dialect, str(seconds), stops=False)
    said = [line.split() for line in printed.splitlines()]
    sent = [(kind, number) for word, kind, number, *_ in said if word == "sent"]
    got = [(kind, number, *code) for word, kind, number, *code in said if word == "got"]
    assert len(sent) == 35 and len(got) == 33
    # The ten at a time, answered the other way round.
    assert [(kind, number) for kind, number, _ in got[22:32]] == [
        (kind.replace("00", "10"), number) for kind, number in reversed(sent[22:32])
    ]
    # An answer has the class and the number of its request.
    codes = {(kind[1], number): code for kind, number, code in got}
    codes[OF_THE_HOST[0][1], OF_THE_HOST[1]] = "00"

    lost: list[dict[str, Any]] = []
    asked = [sent[0], OF_THE_HOST, *sent[1:]]
    for point in ("c-p", "s-p"):
        rows = seen.rows(ISO8583, point)
        of = {(row["request_type"], attributes(row).get("field_11", "000000")): row for row in rows}
        found = [(row["request_type"], attributes(row).get("field_11", "000000")) for row in rows]
        # The host may read many messages at once.
        assert found == asked if point == "c-p" else sorted(found) == sorted(asked)
        for request, row in of.items():
            shown = attributes(row)
            assert (row["version"], row["is_reversed"]) == ("1987", int(request == OF_THE_HOST)), request
            if request in (NOTIFICATION, UNANSWERED):
                assert row["response_code"] is None and "field_39" not in shown, request
                continue
            code = codes[request[0][1], request[1]]
            answer = (row["type"], row["response_result"], shown["field_39"], row["response_code"])
            assert answer == (2, code, code, int(code)), request
            assert row["response_status"] == STATUSES[code], request
            assert row["response_exception"] == ("" if code == "00" else f"response code {code}"), request
            if request[0] == "0800":
                assert (row["request_length"], row["response_length"]) == SIGN_ON[dialect]
                continue
            assert shown["field_37"] == f"REF{int(request[1]):09}" and shown["field_41"] == "TERM0001"
            # The units of an amount are the milliseconds that the host took.
            assert row["response_duration"] >= int(shown["field_4"][:-2]) * 1000, request
            hidden = {"field_2", "field_14", "field_35", "field_45", "field_48", "field_52"}
            hidden |= {"field_90"} if request[0] in ("0400", "0420") else set()
            assert {name for name, value in shown.items() if value == "?"} == hidden
        assert (of[NOTIFICATION]["type"], of[NOTIFICATION]["response_status"]) == (2, OK)
        assert (of[UNANSWERED]["type"], of[UNANSWERED]["response_duration"]) == (0, 0)
        lost.append(of[UNANSWERED])
        assert not [secret for secret in SECRETS if secret in str(rows)]
    assert not seen.others(ISO8583)
    return lost
