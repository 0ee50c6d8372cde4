"""`account.py doctor` against moto, and a stand-in for what moto lacks: quotas, IAM's simulation, the spot market."""

import fnmatch
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError, NoCredentialsError

from tests.cluster.conftest import CREATE, IMAGE, REGION

Account = Callable[..., int]
PRICES = {"us-west-2": {"us-west-2a": 0.24, "us-west-2b": 0.21}, "us-east-2": {"us-east-2a": 0.19}, "eu-west-1": {}}
SCORES = {"us-west-2": {"usw2-az1": 3, "usw2-az2": 7}, "us-east-2": {"use2-az1": 9}, "eu-west-1": {"euw1-az1": 2}}


class Amazon:
    """What AWS answers where moto does not, and what it refuses."""

    def __init__(self) -> None:
        self.quotas = {"L-3819A6DF": 16.0, "L-DB2E81BA": 0.0}
        self.image = {"ImageId": IMAGE, "CreationDate": "2026-10-01T00:00:00.000Z", "Tags": []}
        self.image["Name"] = "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) 20261001"
        self.errors: dict[str, Exception] = {}

    def answer(self, operation: str, asked: dict[str, Any], region: str) -> Any:
        """The answer, or None where moto knows better."""
        if operation in self.errors:
            raise self.errors[operation]
        if operation == "GetServiceQuota":
            return {"Quota": {"Value": self.quotas[asked["QuotaCode"]]}}
        if operation == "DescribeImages" and "Owners" not in asked:
            named = asked.get("ImageIds") or asked["Filters"][0]["Values"]
            return {"Images": [self.image] if self.image["ImageId"] in named else []}
        if operation == "DescribeRegions":
            return {"Regions": [{"RegionName": name} for name in PRICES]}
        if operation == "DescribeSpotPriceHistory":
            found = [{"AvailabilityZone": zone, "SpotPrice": str(price)} for zone, price in PRICES[region].items()]
            return {"SpotPriceHistory": [item | {"Timestamp": "2026-11-29"} for item in found]}
        if operation == "GetSpotPlacementScores":
            assert asked["SingleAvailabilityZone"] is True
            assert asked["TargetCapacity"] == 4
            return {
                "SpotPlacementScores": [
                    {"Region": name, "AvailabilityZoneId": zone, "Score": score}
                    for name in asked["RegionNames"]
                    for zone, score in SCORES[name].items()
                ]
            }
        if operation == "SimulatePrincipalPolicy":
            return simulate(asked)
        return None


def simulate(asked: dict[str, Any]) -> dict[str, Any]:
    """IAM's simulation of the policies that moto keeps for the role, as far as they go: Allow, patterns, equality."""
    iam, role = boto3.client("iam"), asked["PolicySourceArn"].rsplit("/", 1)[-1]
    statements = [
        statement
        for name in iam.list_role_policies(RoleName=role)["PolicyNames"]
        for statement in iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]["Statement"]
    ]
    known = {entry["ContextKeyName"]: entry["ContextKeyValues"][0] for entry in asked["ContextEntries"]}
    (thing,) = asked["ResourceArns"]

    def allows(statement: dict[str, Any], action: str) -> bool:
        things = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        wanted = [pair for test in statement.get("Condition", {}).values() for pair in test.items()]
        return (
            action in statement["Action"]
            and any(fnmatch.fnmatchcase(thing, pattern) for pattern in things)
            and all(fnmatch.fnmatchcase(known.get(name, ""), value) for name, value in wanted)
        )

    return {
        "EvaluationResults": [
            {
                "EvalActionName": action,
                "EvalDecision": "allowed" if any(allows(each, action) for each in statements) else "implicitDeny",
            }
            for action in asked["ActionNames"]
        ]
    }


@pytest.fixture
def amazon_says(monkeypatch: pytest.MonkeyPatch) -> Amazon:
    own, asked_moto = Amazon(), BaseClient._make_api_call

    def ask(client: Any, operation: str, asked: dict[str, Any]) -> Any:
        answer = own.answer(operation, asked, client.meta.region_name)
        return asked_moto(client, operation, asked) if answer is None else answer

    monkeypatch.setattr(BaseClient, "_make_api_call", ask)
    return own


@pytest.fixture
def lines(account: Account, amazon_says: Amazon, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, str]]:
    """What the doctor says, by the name of the check, and of the end as `last`."""

    def ask(*, status: int) -> dict[str, str]:
        capsys.readouterr()
        assert account("doctor") == status
        said = capsys.readouterr().out.splitlines()
        return {line[4:].partition(":")[0]: line for line in said[:-1]} | {"last": said[-1]}

    return ask


@pytest.mark.slow
def test_an_account_that_is_ready(account: Account, lines: Any, file: Path) -> None:
    account(*CREATE)
    said = lines(status=0)
    assert [line for line in said.values() if not line.startswith("ok")] == [f"ready: ray up {file}"]
    assert (
        "16 vCPUs of G instances as spot, 0 on demand; 4 workers want 16 of g4dn.xlarge, 32 of g4dn.2xlarge"
        in said["quota"]
    )
    assert "tried in turn: g4dn.xlarge in us-west-2a, g4dn.xlarge in us-west-2b" in said["zones"]
    assert IMAGE in said["image"]
    assert "somebodys-brats in us-west-2" in said["bucket"]
    assert "us-west-2a $0.240, us-west-2b $0.210" in said["price"]
    assert "Chance of 4 at once, of 10: us-west-2a 7, us-west-2b 3" in said["price"]
    best = "us-east-2 9 of 10, $0.190, us-west-2 7 of 10, $0.210"
    assert said["region"].startswith(f"ok  region: for 4 x g4dn.xlarge as spot in one zone: {best}")


def test_a_new_account_is_told_what_to_type(account: Account, lines: Any, amazon_says: Amazon, file: Path) -> None:
    amazon_says.quotas["L-3819A6DF"] = 0.0
    amazon_says.errors["DescribeImages"] = ClientError({"Error": {"Code": "UnauthorizedOperation"}}, "DescribeImages")
    boto3.client("ec2", region_name=REGION).delete_subnet(SubnetId=subnet_of("us-west-2a"))
    said = lines(status=1)
    assert said["quota"].startswith("NO")
    assert "--quota-code L-3819A6DF --desired-value 16" in said["quota"]
    assert said["network"].endswith("aws ec2 create-default-subnet --availability-zone us-west-2a")
    assert said["image"].startswith("??  image: could not be asked")
    assert said["bucket"] == f"NO  bucket: none is named in {file}; python cluster/account.py create makes it"
    assert "no role brats-ray-head and no role brats-ray-worker" in said["roles"]
    assert said["last"] == "5 of 9 want attention"


def subnet_of(zone: str) -> str:
    found = boto3.client("ec2", region_name=REGION).describe_subnets(
        Filters=[{"Name": "availability-zone", "Values": [zone]}]
    )["Subnets"]
    name: str = found[0]["SubnetId"]
    return name


def test_nobody_is_told_once(lines: Any, amazon_says: Amazon) -> None:
    amazon_says.errors["GetCallerIdentity"] = NoCredentialsError()
    said = lines(status=1)
    assert said["last"].startswith("NO  credentials: could not be asked: Unable to locate credentials; aws configure")


@pytest.mark.slow
def test_on_demand_workers_want_the_other_quota(account: Account, lines: Any, file: Path) -> None:
    account(*CREATE)
    kept = [line for line in file.read_text().splitlines() if "InstanceMarketOptions" not in line]
    file.write_text("\n".join(kept))
    said = lines(status=1)
    assert "--quota-code L-DB2E81BA --desired-value 16" in said["quota"]
    assert said["last"] == "1 of 9 want attention"


@pytest.mark.slow
def test_a_policy_that_lacks_something_is_named(account: Account, lines: Any) -> None:
    account(*CREATE)
    boto3.client("iam").delete_role_policy(RoleName="brats-ray-head", PolicyName="scaling-brats-us-west-2")
    boto3.client("iam").delete_role_policy(RoleName="brats-ray-worker", PolicyName="storage-brats-us-west-2")
    said = lines(status=1)
    assert "brats-ray-head ec2:RunInstances" in said["roles"]
    assert "brats-ray-head iam:PassRole" in said["roles"]
    assert "brats-ray-worker s3:PutObject" in said["roles"]
    assert "brats-ray-head s3" not in said["roles"]


@pytest.mark.slow
def test_a_type_that_a_zone_lacks_and_a_bucket_elsewhere(account: Account, lines: Any, file: Path) -> None:
    account(*CREATE)
    elsewhere = boto3.client("s3", region_name="eu-west-1")
    elsewhere.create_bucket(Bucket="far-away", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    text = file.read_text().replace("somebodys-brats", "far-away").replace("Zone: us-west-2b", "Zone: us-west-2x")
    file.write_text(text)
    said = lines(status=1)
    assert "us-west-2x has no g4dn.xlarge" in said["zones"]
    assert "us-west-2a" in said["zones"]
    assert said["bucket"].startswith("NO  bucket: far-away is in eu-west-1, the cluster in us-west-2")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "date", "fine"),
    [
        ("Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) 20250601", "2025-06-01", False),
        ("ubuntu-noble-24.04-amd64-server", "2026-10-01", False),
        ("Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) 20260201", "2026-02-01", True),
    ],
)
def test_the_images_driver(account: Account, lines: Any, amazon_says: Amazon, name: str, date: str, fine: bool) -> None:  # noqa: FBT001
    account(*CREATE)
    amazon_says.image |= {"Name": name, "CreationDate": f"{date}T00:00:00.000Z"}
    said = lines(status=int(not fine))
    assert said["image"].startswith("ok" if fine else "NO")
