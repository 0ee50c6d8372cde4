"""The budget that `account.py create` makes."""

from collections.abc import Callable
from typing import Any

import boto3
import pytest
from moto.core import DEFAULT_ACCOUNT_ID

from storage import InputError
from tests.cluster.conftest import CREATE, REGION

Account = Callable[..., int]


def budgets() -> list[dict[str, Any]]:
    client = boto3.client("budgets", region_name=REGION)
    return list(client.describe_budgets(AccountId=DEFAULT_ACCOUNT_ID).get("Budgets", []))


def test_an_alarm_goes_off_before_the_bill_comes(account: Account) -> None:
    account(*CREATE)
    assert account(*CREATE, "--dollars-a-month", "250") == 0
    (budget,) = budgets()
    assert (budget["BudgetLimit"], budget["TimeUnit"]) == ({"Amount": "250", "Unit": "USD"}, "MONTHLY")
    found = boto3.client("budgets", region_name=REGION).describe_notifications_for_budget(
        AccountId=DEFAULT_ACCOUNT_ID, BudgetName=budget["BudgetName"]
    )["Notifications"]
    alarms = {(each["NotificationType"], each["Threshold"]) for each in found}
    assert alarms == {("ACTUAL", 50.0), ("ACTUAL", 100.0), ("FORECASTED", 100.0)}
    assert account("remove") == 0
    assert budgets() == []


@pytest.mark.parametrize("wrong", [("--alarm-to", "me"), ("--dollars-a-month", "0")])
def test_an_alarm_that_reaches_nobody_is_refused(account: Account, wrong: tuple[str, str]) -> None:
    with pytest.raises(InputError, match=wrong[0]):
        account(*CREATE, *wrong)
    assert budgets() == []
