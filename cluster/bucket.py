"""The bucket of stores and runs: made, and emptied and removed."""

from typing import Any

from botocore.exceptions import ClientError

from aws_account import Account, say, there_already
from storage import InputError


def make_bucket(account: Account, bucket: str) -> None:
    """A bucket that nobody outside the account can read, and that forgets uploads which were never finished.

    What is deleted or replaced is kept for two weeks; in runs, whose checkpoints come and go, for a day.
    """
    place = (
        {} if account.region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": account.region}}
    )
    try:
        account.s3.create_bucket(Bucket=bucket, **place)
    except ClientError as error:
        if error.response["Error"]["Code"] == "BucketAlreadyExists":
            raise InputError(f"--bucket {bucket} belongs to somebody else: choose another name") from error
        if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
            raise
    closed = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
    account.s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=closed)
    tidy = {"ID": "unfinished-uploads", "Status": "Enabled", "Filter": {"Prefix": ""}}
    tidy["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": 2}
    rules = [tidy, forget_after("deleted", "", 14), forget_after("deleted-checkpoints", "runs/", 1)]
    account.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    account.s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})
    say(f"bucket {bucket}: closed to the public; what is deleted can be had back for two weeks, of runs for a day")


def forget_after(name: str, prefix: str, days: int) -> dict[str, Any]:
    """A rule that ends versions which are no longer the newest, and the marks of deleted objects."""
    rule: dict[str, Any] = {"ID": name, "Status": "Enabled", "Filter": {"Prefix": prefix}}
    return rule | {
        "NoncurrentVersionExpiration": {"NoncurrentDays": days},
        "Expiration": {"ExpiredObjectDeleteMarker": True},
    }


def remove_bucket(account: Account) -> None:
    """Remove the bucket that the file names, with every version of what is in it."""
    with there_already("NoSuchBucket"):  # or rather gone already
        for page in account.s3.get_paginator("list_object_versions").paginate(Bucket=account.bucket):
            found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            if found:
                objects = [{"Key": item["Key"], "VersionId": item["VersionId"]} for item in found]
                account.s3.delete_objects(Bucket=account.bucket, Delete={"Objects": objects, "Quiet": True})
        account.s3.delete_bucket(Bucket=account.bucket)
        say(f"bucket {account.bucket}: removed with all that was in it")
