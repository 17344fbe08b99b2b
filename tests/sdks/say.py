"""What the tests read: lines of JSON."""

import json


def usage(found):
    print(json.dumps(found and found.to_dict()), flush=True)


def counts(prompt, cached, output):
    """All of the prompt, what of it came from the cache, and all of the answer."""
    print(json.dumps([int(prompt), int(cached or 0), int(output)]), flush=True)


def refusal(expected, call):
    try:
        call()
    except expected as error:
        print(json.dumps({"status": error.status_code, "kind": type(error).__name__, "message": str(error)}), flush=True)
    else:
        raise AssertionError("the call was not refused")
