"""What head and workers do, asked of IAM's own simulation of their roles: nothing is started for it."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from botocore.exceptions import ClientError

from aws_account import PROJECT, Account

HEAD, WORKER = f"{PROJECT}-head", f"{PROJECT}-worker"


@dataclass(frozen=True, kw_only=True)
class Deed:
    """Actions on one thing, under what AWS knows of the request."""

    actions: Sequence[str]
    thing: str
    known: Mapping[str, str] = field(default_factory=dict)


def storage_deeds(account: Account) -> list[Deed]:
    """What every node does with the bucket."""
    bucket = f"arn:aws:s3:::{account.bucket}"
    return [
        Deed(
            actions=["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"], thing=f"{bucket}/brats.zarr/zarr.json"
        ),
        Deed(
            actions=["s3:PutObject", "s3:DeleteObject"], thing=f"{bucket}/runs/first/checkpoint_epoch_0000/record.json"
        ),
        Deed(actions=["s3:ListBucket"], thing=bucket),
    ]


def scaling_deeds(account: Account) -> list[Deed]:
    """What Ray's autoscaler does on the head."""
    place = f"arn:aws:ec2:{account.region}:{account.number()}"
    instance = f"{place}:instance/i-0123456789abcdef0"
    region = {"aws:RequestedRegion": account.region}
    deeds = [
        Deed(actions=["ec2:DescribeInstances", "ec2:DescribeInstanceTypes"], thing="*", known=region),
        Deed(actions=["ec2:RunInstances"], thing=f"arn:aws:ec2:{account.region}::image/{account.image}"),
        Deed(actions=["ec2:CreateTags"], thing=instance, known={"ec2:CreateAction": "RunInstances"}),
        Deed(
            actions=["ec2:CreateTags", "ec2:TerminateInstances"],
            thing=instance,
            known={"aws:ResourceTag/ray-cluster-name": account.cluster},
        ),
        Deed(
            actions=["iam:PassRole"],
            thing=f"arn:aws:iam::{account.number()}:role/{WORKER}",
            known={"iam:PassedToService": "ec2.amazonaws.com"},
        ),
    ]
    deeds += [
        Deed(actions=["ec2:RunInstances"], thing=instance, known={"ec2:InstanceType": kind})
        for kind in sorted(account.workers().types)
    ]
    parts = ("key-pair/brats-ray", "network-interface/*", "security-group/*", "subnet/*", "volume/*")
    return deeds + [Deed(actions=["ec2:RunInstances"], thing=f"{place}:{part}") for part in parts]


def ask_roles(account: Account) -> tuple[list[str], list[str]]:
    """Return the roles that are not there, and what those that are may not do."""
    missing, refused = [], []
    for role, deeds in (
        (HEAD, itertools.chain(scaling_deeds(account), storage_deeds(account))),
        (WORKER, storage_deeds(account)),
    ):
        try:
            arn = account.iam.get_role(RoleName=role)["Role"]["Arn"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchEntity":
                raise
            missing.append(f"role {role}")
            continue
        refused += [f"{role} {action}" for deed in deeds for action in refused_actions(account, arn, deed)]
    return missing, sorted(set(refused))


def refused_actions(account: Account, role: str, deed: Deed) -> list[str]:
    """Return the actions of `deed` that the role may not do."""
    context = [
        {"ContextKeyName": name, "ContextKeyValues": [value], "ContextKeyType": "string"}
        for name, value in deed.known.items()
    ]
    answer = account.iam.simulate_principal_policy(
        PolicySourceArn=role, ActionNames=list(deed.actions), ResourceArns=[deed.thing], ContextEntries=context
    )
    return [each["EvalActionName"] for each in answer["EvaluationResults"] if each["EvalDecision"] != "allowed"]
