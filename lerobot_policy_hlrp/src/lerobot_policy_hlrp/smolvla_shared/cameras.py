"""Which key of a dataset or environment is which camera of the model."""

import json

from lerobot.utils.constants import OBS_IMAGES, OBS_PREFIX


def role_of(key: str) -> str:
    """The name of a camera: `top` for `observation.images.top`, `image` for `observation.image`."""
    return key.removeprefix(f"{OBS_IMAGES}.").removeprefix(OBS_PREFIX)


def map_cameras(keys: list[str], roles: list[str] | None, num_empty: int, given: dict[str, str]) -> dict[str, str]:
    """Role to key, for the model's `roles` (none: a new model, which takes its roles from the keys).

    A given map decides. Without one, equal names are matched, then a single camera that is left over on either side.
    """
    if roles is None:
        roles, num_empty = list(given) or [role_of(key) for key in keys], 0
    if given:
        check_map(given, keys, roles)
        mapped = {role: given[role] for role in roles if role in given}
    else:
        mapped = match_names(keys, roles)
    missing = [role for role in roles if role not in mapped]
    if len(missing) > num_empty:
        raise ValueError(
            f"the data has no image for the model's cameras {missing}; its own are {keys}\n"
            f"hint: use data with {len(roles)} cameras; the model works without {num_empty} of them"
        )
    return mapped


def match_names(keys: list[str], roles: list[str]) -> dict[str, str]:
    """Role to key by equal names, then by elimination where one of each is left over; anything else is refused."""
    by_name = {role_of(key): key for key in keys}
    mapped = {role: by_name[role] for role in roles if role in by_name}
    spare_roles = [role for role in roles if role not in mapped]
    spare_keys = [key for key in keys if key not in mapped.values()]
    if len(spare_roles) == len(spare_keys) == 1:
        mapped[spare_roles[0]] = spare_keys[0]
    elif spare_keys:
        proposed = mapped | dict(zip(spare_roles, spare_keys, strict=False))
        raise ValueError(
            f"cannot match the cameras of the data {keys} to those of the model {roles}: "
            f"after equal names, {spare_keys} and {spare_roles} are left over\n"
            f"hint: set the map, for instance --policy.camera_map='{json.dumps(proposed)}'"
        )
    return {role: mapped[role] for role in roles if role in mapped}


def check_map(given: dict[str, str], keys: list[str], roles: list[str]) -> None:
    """Refuses a map that names a role or key that does not exist."""
    for role, key in given.items():
        if role not in roles:
            raise ValueError(f"camera_map names the camera `{role}`\nhint: the model has {roles}")
        if key not in keys:
            raise ValueError(f"camera_map.{role} is `{key}`, which is not a camera of the data\nhint: it has {keys}")
