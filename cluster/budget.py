"""An AWS Budget that writes to its owner: the alarm for what the cluster's own brakes let through.

AWS counts costs some hours behind, a day at most, and a budget ends nothing: it is the last to know.
"""

from typing import Any

from aws_account import PROJECT, Account, say, there_already

ALARMS = (("ACTUAL", 50.0), ("ACTUAL", 100.0), ("FORECASTED", 100.0))  # kind, percent


def make_budget(account: Account, dollars: float, address: str) -> None:
    """Make the account's budget, or bring the one that is there up to date."""
    limit = {"Amount": f"{dollars:g}", "Unit": "USD"}
    budget = {"BudgetName": PROJECT, "BudgetType": "COST", "TimeUnit": "MONTHLY", "BudgetLimit": limit}
    alarms = [describe_alarm(kind, percent, address) for kind, percent in ALARMS]
    remove_budget(account)  # one of another address or limit
    account.budgets.create_budget(AccountId=account.number(), Budget=budget, NotificationsWithSubscribers=alarms)
    say(f"budget {PROJECT}: ${dollars:g} a month for the account; AWS writes to {address} at half, at all, and ahead")


def describe_alarm(kind: str, percent: float, address: str) -> dict[str, Any]:
    """An alarm as AWS Budgets takes it."""
    notification = {"NotificationType": kind, "ComparisonOperator": "GREATER_THAN", "Threshold": percent}
    notification["ThresholdType"] = "PERCENTAGE"
    return {"Notification": notification, "Subscribers": [{"SubscriptionType": "EMAIL", "Address": address}]}


def remove_budget(account: Account) -> None:
    """Remove it with its alarms, if it is there."""
    with there_already("NotFoundException"):
        account.budgets.delete_budget(AccountId=account.number(), BudgetName=PROJECT)
