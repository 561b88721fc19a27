"""Where each file of a repository lies: the only place that spells its keys. Pure."""

from strongroom.dataplane.objectstore.port import Key, parse_key

CONFIG = Key("repository.json")
KEYS = "keys/"
RUNS = "runs/"
PACKS = "packs/"
INDEX = "index/"
LISTS = "lists/"
POINTS = "points/"
CONDEMNED = "condemned/"
SWEPT = "swept/"
RESTORES = "restores/"
PROBE = "probe/"


def key_path(key_id: str) -> Key:
    return parse_key(f"{KEYS}{key_id}.json")


def run_path(run_id: str) -> Key:
    return parse_key(f"{RUNS}{run_id}.json")


def pack_path(pack_id: str) -> Key:
    return parse_key(f"{PACKS}{pack_id}.parquet")


def index_path(index_id: str) -> Key:
    return parse_key(f"{INDEX}{index_id}.parquet")


def list_path(list_id: str) -> Key:
    return parse_key(f"{LISTS}{list_id}.parquet")


def manifest_path(point_id: str) -> Key:
    return parse_key(f"{POINTS}{point_id}/manifest.json")


def condemned_path(record_id: str) -> Key:
    return parse_key(f"{CONDEMNED}{record_id}.json")


def swept_path(record_id: str) -> Key:
    return parse_key(f"{SWEPT}{record_id}.json")


def restore_folder(restore_id: str) -> str:
    return f"{RESTORES}{restore_id}/"


def journal_path(restore_id: str, number: int) -> Key:
    return parse_key(f"{RESTORES}{restore_id}/journal/{number:08d}")


def result_path(restore_id: str) -> Key:
    return parse_key(f"{RESTORES}{restore_id}/result")


def file_id(key: str) -> str:
    """Return the id in a key of `packs/`, `index/`, `lists/`, `runs/`, `condemned/`, `swept/` or `keys/`."""
    return key.rpartition("/")[2].partition(".")[0]
