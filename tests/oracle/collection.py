"""The results of duplicity's own code for lists of file names.

Reads one JSON object a line: {"names": [...], "times": [...]}; answers one a line. A set is [start or null, end].
"""

import builtins
import json
import sys

builtins._ = lambda text: text
builtins.ngettext = lambda one, many, n: one if n == 1 else many

from duplicity import config, dup_collections, file_naming, log  # noqa: E402


class Listing:
    """A backend, or an empty archive directory, that only lists."""

    def __init__(self, names):
        self.names = [name.encode() for name in names]

    def list(self):
        return self.names

    def listdir(self):
        return self.names


def key(backup_set):
    return [backup_set.start_time, backup_set.get_time()]


def chain_keys(chains):
    # Not get_all_sets(), which ignores a full set without volumes.
    return [[key(s) for s in [chain.fullset] + chain.incset_list] for chain in chains]


def signature_chain(chain):
    return [name.decode() for name in chain.get_filenames()]


def select(status, chains, time):
    """The set that `restore --time` ends with, over chains that have lost no set to a missing signature archive."""
    status.all_backup_chains = chains
    try:
        return key(status.get_backup_chain_at_time(time).get_sets_at_time(time)[-1])
    except dup_collections.CollectionsError as error:
        return str(error)


def answer(case):
    config.archive_dir_path = Listing([])
    backend = Listing(case["names"])
    status = dup_collections.CollectionsStatus(backend, config.archive_dir_path, "restore")
    chains, _orphaned, _incomplete = status.get_backup_chains(backend.list())
    chains = status.get_sorted_chains(chains)
    result = {
        "chains": chain_keys(chains),
        "selected": [select(status, chains, time) for time in case["times"]],
    }
    status.set_values()
    primary = status.matched_chain_pair
    result.update(
        {
            "primary": primary and status.all_backup_chains.index(primary[1]),
            "after_discard": chain_keys(status.all_backup_chains),
            "orphaned": [key(s) for s in status.orphaned_backup_sets],
            "incomplete": [key(s) for s in status.incomplete_backup_sets],
            "signature_chains": [signature_chain(chain) for chain in status.all_sig_chains or []],
            "orphaned_signatures": [name.decode() for name in status.remote_orphaned_sig_names],
        }
    )
    return result


def main():
    log.setup()
    log.setverbosity(0)
    file_naming.prepare_regex(force=True)
    for line in sys.stdin:
        try:
            result = answer(json.loads(line))
        except AssertionError as error:
            result = {"dies": str(error)}
        print(json.dumps(result))


main()
