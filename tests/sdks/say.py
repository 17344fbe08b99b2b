"""What the tests read: lines of JSON."""

import json


def usage(found):
    print(json.dumps(found and found.to_dict()), flush=True)


def refusal(expected, call):
    try:
        call()
    except expected as error:
        print(json.dumps({"status": error.status_code, "kind": type(error).__name__, "message": str(error)}), flush=True)
    else:
        raise AssertionError("the call was not refused")
