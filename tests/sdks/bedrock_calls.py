"""Calls of boto3 to Bedrock, signed or with an API key: what it reports as used, as a line of JSON for each."""

import json
import os
import sys

import boto3
import say
from botocore.exceptions import ClientError, EventStreamError

CLAUDE = "global.anthropic.claude-sonnet-4-6"
NOVA = "us.amazon.nova-lite-v1:0"
PROMPT = "You keep a weir. " * 500
SCHEMA = {"type": "object", "properties": {"gauge": {"type": "string"}}}
QUESTION = "How high is the water? [[sim: tokens=40 tool=read_gauge]]"
AGAIN = "And now? [[sim: tokens=150 events=20]]"

# Converse, and what Nova takes as the body of InvokeModel.
CONVERSE = {
    "system": [{"text": PROMPT}, {"cachePoint": {"type": "default"}}],
    "messages": [{"role": "user", "content": [{"text": QUESTION}]}],
    "toolConfig": {"tools": [{"toolSpec": {"name": "read_gauge", "inputSchema": {"json": SCHEMA}}}]},
    "inferenceConfig": {"maxTokens": 1000},
}
MESSAGES = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 1000,
    "system": [{"type": "text", "text": PROMPT, "cache_control": {"type": "ephemeral"}}],
    "tools": [{"name": "read_gauge", "description": "Reads a gauge.", "input_schema": SCHEMA}],
    "messages": [{"role": "user", "content": QUESTION}],
}


def answered(message):
    """The conversation with the result of the tool that `message` calls."""
    [use] = [block["toolUse"] for block in message["content"] if "toolUse" in block]
    result = {"toolResult": {"toolUseId": use["toolUseId"], "content": [{"text": "2 m"}]}}
    return [*CONVERSE["messages"], message, {"role": "user", "content": [result, {"text": AGAIN}]}]


def count(used):
    say.buckets(
        used["inputTokens"], used["cacheReadInputTokens"], used["cacheWriteInputTokens"], used["outputTokens"]
    )


def converse(client, model):
    answer = client.converse(modelId=model, **CONVERSE)
    count(answer["usage"])
    assert answer["stopReason"] == "tool_use", answer
    again = CONVERSE | {"messages": answered(answer["output"]["message"])}
    events = list(client.converse_stream(modelId=model, **again)["stream"])
    text = "".join(event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event)
    assert len(text.encode()) == 4 * 150, text
    count(events[-1]["metadata"]["usage"])


def growing(client, model):
    """A conversation that nobody marked for the cache."""
    tool = {"name": "read_gauge", "description": PROMPT, "inputSchema": {"json": SCHEMA}}
    call = {"modelId": model, "system": [{"text": PROMPT}], "toolConfig": {"tools": [{"toolSpec": tool}]}}
    messages = list(CONVERSE["messages"])
    for _ in range(3):
        answer = client.converse(messages=messages, **call)
        count(answer["usage"])
        message = answer["output"]["message"]
        [use] = [block["toolUse"] for block in message["content"] if "toolUse" in block]
        result = {"toolUseId": use["toolUseId"], "content": [{"text": QUESTION}]}
        messages += [message, {"role": "user", "content": [{"toolResult": result}]}]


def growing_messages(client):
    """The same in the maker's own shape."""
    tool = {"name": "read_gauge", "description": PROMPT, "input_schema": SCHEMA}
    call = MESSAGES | {"system": PROMPT, "tools": [tool]}
    messages = list(MESSAGES["messages"])
    for _ in range(3):
        body = json.dumps(call | {"messages": messages})
        answer = json.loads(client.invoke_model(modelId=CLAUDE, body=body)["body"].read())
        count_messages(answer["usage"])
        [use] = [block for block in answer["content"] if block["type"] == "tool_use"]
        result = {"type": "tool_result", "tool_use_id": use["id"], "content": QUESTION}
        messages += [{"role": "assistant", "content": answer["content"]}, {"role": "user", "content": [result]}]


def count_messages(used):
    say.buckets(
        used["input_tokens"], used["cache_read_input_tokens"], used["cache_creation_input_tokens"], used["output_tokens"]
    )


def chunks(client, model, body):
    answer = client.invoke_model_with_response_stream(modelId=model, body=json.dumps(body))
    return [json.loads(event["chunk"]["bytes"]) for event in answer["body"]]


def invoke_claude(client):
    answer = json.loads(client.invoke_model(modelId=CLAUDE, body=json.dumps(MESSAGES))["body"].read())
    count_messages(answer["usage"])
    measured(chunks(client, CLAUDE, MESSAGES)[-1])


def measured(last):
    used = last["amazon-bedrock-invocationMetrics"]
    say.buckets(
        used["inputTokenCount"],
        used["cacheReadInputTokenCount"],
        used["cacheWriteInputTokenCount"],
        used["outputTokenCount"],
    )


def invoke_nova(client):
    answer = json.loads(client.invoke_model(modelId=NOVA, body=json.dumps(CONVERSE))["body"].read())
    used = answer["usage"]
    say.buckets(
        used["inputTokens"], used["cacheReadInputTokenCount"], used["cacheWriteInputTokenCount"], used["outputTokens"]
    )
    measured(chunks(client, NOVA, CONVERSE)[-1])


def asked(text):
    return [{"role": "user", "content": [{"text": text}]}]


def fails(events):
    """A stream that begins well, and ends in an exception."""
    try:
        list(events)
    except EventStreamError as error:
        print(json.dumps(error.response["Error"]), flush=True)
    else:
        raise AssertionError("the stream ended well")


def broken(client):
    messages = asked("How high is the water? [[sim: tokens=40 error_after=4]]")
    fails(client.converse_stream(modelId=CLAUDE, **CONVERSE | {"messages": messages})["stream"])


def outgrown(client):
    text = "And then? [[sim: tokens=12000 events=600 delay_ms=1]]"
    limit = {"maxTokens": 64_000}
    fails(client.converse_stream(modelId=CLAUDE, messages=asked(text), inferenceConfig=limit)["stream"])
    body = {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 64_000,
        "messages": [{"role": "user", "content": text}],
    }
    model = "us.anthropic.claude-sonnet-4-6"
    fails(client.invoke_model_with_response_stream(modelId=model, body=json.dumps(body))["body"])


def counted(client):
    """What is counted beforehand is what is used then."""
    counting = {name: CONVERSE[name] for name in ("system", "messages", "toolConfig")}
    print(client.count_tokens(modelId=CLAUDE, input={"converse": counting})["inputTokens"], flush=True)
    count(client.converse(modelId=CLAUDE, **CONVERSE)["usage"])


def refused(call):
    try:
        call()
    except ClientError as error:
        answer = error.response["ResponseMetadata"]
        assert answer["RetryAttempts"] == 0, answer
        say.refused(answer["HTTPStatusCode"], error.response["Error"]["Code"], str(error))
    else:
        raise AssertionError("the call was not refused")


if sys.argv[1].startswith("unsigned"):
    os.environ["AWS_BEARER_TOKEN_BEDROCK"] = "bedrock-api-key-simulated"
client = boto3.client("bedrock-runtime", region_name="us-east-1")
match sys.argv[1:]:
    case ["all" | "unsigned"]:
        converse(client, CLAUDE)
        converse(client, "us.anthropic.claude-sonnet-4-6")
        converse(client, NOVA)
        invoke_claude(client)
        invoke_nova(client)
    case ["growing" | "unsigned growing"]:
        growing(client, CLAUDE)
        growing(client, NOVA)
        growing_messages(client)
    case ["one"]:
        count(client.converse(modelId=CLAUDE, **CONVERSE)["usage"])
    case ["counted"]:
        counted(client)
    case ["broken"]:
        broken(client)
    case ["outgrown"]:
        outgrown(client)
    case ["refused"]:
        refused(lambda: client.converse(modelId=CLAUDE, **CONVERSE))
        refused(lambda: client.converse_stream(modelId=CLAUDE, **CONVERSE))
        refused(lambda: client.invoke_model(modelId=CLAUDE, body=json.dumps(MESSAGES)))
        refused(lambda: client.invoke_model_with_response_stream(modelId=NOVA, body=json.dumps(CONVERSE)))
