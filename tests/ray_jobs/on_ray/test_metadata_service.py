"""The metadata service's answers, from a fake one on loopback."""

import socket
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ray_jobs.on_ray.metadata_service import INSTANCE_ACTION, TOKEN, Interruption, MetadataError, MetadataService


def patient(fake: Any) -> MetadataService:
    """A service that is waited for, however busy this machine is."""
    return MetadataService(fake.url, timeout=60)


def test_one_token_serves_all_questions_and_nothing_is_said_while_all_is_well(fake_metadata: Any) -> None:
    service = patient(fake_metadata)
    for _ in range(3):
        assert service.interruption() is None
        assert not service.rebalance_recommended()
    assert fake_metadata.tokens_given == 1
    assert fake_metadata.asked[0] == (TOKEN, 200)
    assert {status for _, status in fake_metadata.asked[1:]} == {404}


def test_a_token_that_expired_is_renewed_at_once(fake_metadata: Any) -> None:
    service = patient(fake_metadata)
    assert service.interruption() is None
    fake_metadata.expire_token()
    fake_metadata.give_notice('{"action": "terminate", "time": "2026-11-24T08:22:00Z"}')
    assert service.interruption() == Interruption(action="terminate", time=datetime(2026, 11, 24, 8, 22, tzinfo=UTC))
    assert fake_metadata.asked[2:] == [(INSTANCE_ACTION, 401), (TOKEN, 200), (INSTANCE_ACTION, 200)]


def test_time_left_counts_down_to_nothing() -> None:
    soon = Interruption(action="stop", time=datetime.now(UTC) + timedelta(seconds=90))
    assert 85 < soon.seconds_left() <= 90
    assert Interruption(action="stop", time=datetime.now(UTC) - timedelta(hours=1)).seconds_left() == 0


def test_a_notice_without_a_time_counts_as_one_of_two_minutes(fake_metadata: Any) -> None:
    for body in ('{"action": "terminate"}', '{"action": "terminate", "time": "soon"}'):
        fake_metadata.give_notice(body)
        notice = patient(fake_metadata).interruption()
        assert notice is not None
        assert 115 < notice.seconds_left() <= 120


@pytest.mark.parametrize("body", ["<html>log in</html>", "[]", '"terminate"', "null", "{}", ""])
def test_an_answer_that_is_no_notice_is_an_error_and_not_a_notice(body: str, fake_metadata: Any) -> None:
    fake_metadata.give_notice(body)
    with pytest.raises(MetadataError, match="wanted an interruption notice as JSON"):
        patient(fake_metadata).interruption()


def test_a_refused_or_failing_service_is_an_error_with_its_status(fake_metadata: Any) -> None:
    fake_metadata.answers[INSTANCE_ACTION] = (503, "")
    service = patient(fake_metadata)
    with pytest.raises(MetadataError, match=r"spot/instance-action answered 503"):
        service.interruption()
    fake_metadata.answers.clear()
    assert service.interruption() is None
    fake_metadata.token_status = 403
    with pytest.raises(MetadataError, match=r"api/token answered 403"):
        patient(fake_metadata).interruption()


def test_nobody_there_is_an_error_whatever_proxy_is_set(monkeypatch: pytest.MonkeyPatch, fake_metadata: Any) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        monkeypatch.setenv("http_proxy", fake_metadata.url)
        with pytest.raises(MetadataError, match=f"no instance metadata service answers at {url}"):
            MetadataService(url).interruption()
    assert fake_metadata.asked == []


def test_a_service_that_never_answers_is_given_up(fake_metadata: Any) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(MetadataError, match="timed out"):
            MetadataService(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.2).interruption()
