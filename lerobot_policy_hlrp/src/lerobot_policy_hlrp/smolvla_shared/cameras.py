"""Which key of a dataset or environment is which camera of the model."""

from lerobot.utils.constants import OBS_IMAGES, OBS_PREFIX


def role_of(key: str) -> str:
    """The name of a camera: `top` for `observation.images.top`, `image` for `observation.image`."""
    return key.removeprefix(f"{OBS_IMAGES}.").removeprefix(OBS_PREFIX)


def map_cameras(keys: list[str], roles: list[str] | None, num_empty: int, given: dict[str, str]) -> dict[str, str]:
    """Role to key, for the model's `roles` (none: a new model, which takes its roles from the keys).

    A given map is obeyed; else equal names meet, and if not every name is known, cameras meet in order.
    """
    hint = 'hint: say which is which, for instance --policy.camera_map=\'{"role": "observation.image"}\''
    if roles is None:
        roles, num_empty = list(given) or [role_of(key) for key in keys], 0
    if given:
        check_map(given, keys, roles)
        mapped = {role: given[role] for role in roles if role in given}
    else:
        by_name = {role_of(key): key for key in keys}
        if len(keys) > len(roles):
            raise ValueError(f"the data has {len(keys)} cameras {keys}, the model {len(roles)} {roles}\n{hint}")
        if by_name.keys() <= set(roles):
            mapped = {role: by_name[role] for role in roles if role in by_name}
        else:
            mapped = dict(zip(roles, keys, strict=False))
    missing = [role for role in roles if role not in mapped]
    if len(missing) > num_empty:
        raise ValueError(
            f"the data has no image for the model's cameras {missing}; its own are {keys}\n"
            f"hint: use data with {len(roles)} cameras; the model works without {num_empty} of them"
        )
    return mapped


def check_map(given: dict[str, str], keys: list[str], roles: list[str]) -> None:
    """Refuses a map that names a role or key that does not exist."""
    for role, key in given.items():
        if role not in roles:
            raise ValueError(f"camera_map names the camera `{role}`\nhint: the model has {roles}")
        if key not in keys:
            raise ValueError(f"camera_map.{role} is `{key}`, which is not a camera of the data\nhint: it has {keys}")
