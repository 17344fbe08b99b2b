"""What the tests of refusals read: lines of JSON, one for each exception."""

import json
import time

LONG = "Tell me all. [[sim: tokens=12000 events=600 delay_ms=1]]"
SHORT = "How high is the water? [[sim: tokens=1000]]"


def say(error, events, began):
    """`seconds`: since the call was made, or since the last event of its answer."""
    line = {
        "kind": type(error).__name__,
        "message": str(error),
        "events": events,
        "seconds": time.monotonic() - began,
    }
    print(json.dumps(line), flush=True)


def of(expected, call):
    """A stream that breaks off: how many events came before the exception."""
    events, began = 0, time.monotonic()
    try:
        for _ in call():
            events, began = events + 1, time.monotonic()
    except expected as error:
        say(error, events, began)
    else:
        raise AssertionError("the stream was not ended")


async def of_asynchronous(expected, stream):
    events, began = 0, time.monotonic()
    try:
        async for _ in stream:
            events, began = events + 1, time.monotonic()
    except expected as error:
        say(error, events, began)
    else:
        raise AssertionError("the stream was not ended")


def until_refused(expected, call):
    """Calls until one is refused: how many were not."""
    for made in range(50):
        began = time.monotonic()
        try:
            call()
        except expected as error:
            return say(error, made, began)
    raise AssertionError("no call was refused")
