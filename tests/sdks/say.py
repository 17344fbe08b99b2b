"""What the tests read: lines of JSON."""

import json


def usage(found):
    print(json.dumps(found and found.to_dict()), flush=True)


def counts(prompt, cached, output):
    """All of the prompt, what of it came from the cache, and all of the answer."""
    print(json.dumps([int(prompt), int(cached or 0), int(output)]), flush=True)


def buckets(uncached, read, written, output):
    """The parts of the prompt, which are disjoint, and all of the answer."""
    print(json.dumps([uncached, read, written, output]), flush=True)


def refused(status, kind, message):
    print(json.dumps({"status": status, "kind": kind, "message": message}), flush=True)


def refusal(expected, call):
    try:
        call()
    except expected as error:
        refused(error.status_code, type(error).__name__, str(error))
    else:
        raise AssertionError("the call was not refused")
