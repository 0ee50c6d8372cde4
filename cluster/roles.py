"""The roles of head and workers, which all clusters of an account share, each with policies of its own."""

import re
from pathlib import Path

from aws_account import PROJECT, Account, say, there_already

IAM = Path(__file__).parent / "iam"
# The role of the nodes' instance profiles, and what it may do: one policy of each kind for every cluster.
POLICIES = {f"{PROJECT}-head": ("storage", "scaling"), f"{PROJECT}-worker": ("storage",)}


def make_roles(account: Account, bucket: str) -> None:
    """An instance profile for the head and one for workers, with the policies of cluster/iam."""
    names = {"ACCOUNT": account.number(), "REGION": account.region}
    names |= {"BUCKET": bucket, "CLUSTER": account.cluster}
    trust = (IAM / "trust.json").read_text()
    for role, policies in POLICIES.items():
        with there_already("EntityAlreadyExists"):
            account.iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust)
        for policy in policies:
            text = (IAM / f"{policy}.json").read_text()
            text = re.sub(rf"\b({'|'.join(names)})\b", lambda found: names[found[0]], text)
            account.iam.put_role_policy(RoleName=role, PolicyName=policy + suffix(account), PolicyDocument=text)
        with there_already("EntityAlreadyExists"):
            account.iam.create_instance_profile(InstanceProfileName=role)
        if not account.iam.get_instance_profile(InstanceProfileName=role)["InstanceProfile"]["Roles"]:
            account.iam.add_role_to_instance_profile(InstanceProfileName=role, RoleName=role)
        account.iam.get_waiter("instance_profile_exists").wait(InstanceProfileName=role)
        say(f"role and instance profile {role}: {' and '.join(policies)}")


def suffix(account: Account) -> str:
    """What tells a cluster's policies from those of another, which has the same roles."""
    return f"-{account.cluster}-{account.region}"


def remove_roles(account: Account) -> set[str]:
    """Remove the cluster's policies, and roles where no other cluster has any; return the names of the others'."""
    others: set[str] = set()
    for role, policies in POLICIES.items():
        profile, named = {"InstanceProfileName": role}, {"RoleName": role}
        for policy in policies:
            with there_already("NoSuchEntity"):  # or rather gone already
                account.iam.delete_role_policy(**named, PolicyName=policy + suffix(account))
        with there_already("NoSuchEntity"):
            left = account.iam.list_role_policies(**named)["PolicyNames"]
            others.update(left)
            if left:
                continue
        steps = [(account.iam.remove_role_from_instance_profile, profile | named)]
        steps += [(account.iam.delete_instance_profile, profile), (account.iam.delete_role, named)]
        for step, what in steps:
            with there_already("NoSuchEntity"):
                step(**what)
    return others
