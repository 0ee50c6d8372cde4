"""What spot instances of the workers' type cost today, and where AWS is likely to have them."""

import datetime
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aws_account import Account

AHEAD = 3  # regions named


def ask_prices(account: Account) -> str:
    """Today's price of each type that the file may start, by zone, and AWS's score of having the gang there."""
    workers = account.workers()
    scores = gang_scores(account, [workers.places[0][1]], workers.count, [account.region])
    parts = []
    for kind in sorted(workers.types):
        prices = zone_prices(account.ec2, kind)
        parts.append(f"{kind} {', '.join(f'{zone} ${price:.3f}' for zone, price in sorted(prices.items()))}")
    here = {item["ZoneId"]: item["ZoneName"] for item in account.ec2.describe_availability_zones()["AvailabilityZones"]}
    likely = sorted(((score, here.get(zone, zone)) for (_, zone), score in scores.items()), reverse=True)
    told = ", ".join(f"{zone} {score}" for score, zone in likely) or "no zone"
    return f"spot by the hour: {'; '.join(parts)}. Chance of {workers.count} at once, of 10: {told}"


def ask_regions(account: Account) -> str:
    """The regions for a new `ray up`: where AWS is most likely to have the whole gang, the cheapest first."""
    workers = account.workers()
    kind = workers.places[0][1]
    regions = [item["RegionName"] for item in account.ec2.describe_regions()["Regions"]]
    best: dict[str, int] = {}
    for (region, _), score in gang_scores(account, [kind], workers.count, regions).items():
        best[region] = max(score, best.get(region, 0))
    with ThreadPoolExecutor(len(best) or 1) as pool:
        found = pool.map(lambda region: zone_prices(account.client("ec2", region), kind), best)
        prices = {region: min(zones.values()) for region, zones in zip(best, found, strict=True) if zones}
    order = sorted(prices, key=lambda region: (-best[region], prices[region]))
    told = ", ".join(f"{region} {best[region]} of 10, ${prices[region]:.3f}" for region in order[:AHEAD])
    own = f"this one {best.get(account.region, 0)} of 10, ${prices.get(account.region, float('nan')):.3f}"
    return f"for {workers.count} x {kind} as spot in one zone: {told or 'none'} ({own}; the bucket would move with it)"


def zone_prices(ec2: Any, kind: str) -> dict[str, float]:
    """The spot price of `kind` now, in dollars an hour, by zone."""
    now = datetime.datetime.now(datetime.UTC)
    asked = {"InstanceTypes": [kind], "ProductDescriptions": ["Linux/UNIX"], "StartTime": now}
    found = ec2.describe_spot_price_history(**asked)["SpotPriceHistory"]
    newest = sorted(found, key=lambda item: str(item["Timestamp"]))  # one a zone, but for a change this minute
    return {item["AvailabilityZone"]: float(item["SpotPrice"]) for item in newest}


def gang_scores(account: Account, kinds: list[str], count: int, regions: list[str]) -> dict[tuple[str, str], int]:
    """AWS's placement score, 1 to 10, of `count` spot instances in one zone, by region and the zone's id."""
    found = account.ec2.get_paginator("get_spot_placement_scores").paginate(
        InstanceTypes=kinds, TargetCapacity=count, SingleAvailabilityZone=True, RegionNames=regions
    )
    return {
        (item["Region"], item["AvailabilityZoneId"]): int(item["Score"])
        for page in found
        for item in page["SpotPlacementScores"]
    }
