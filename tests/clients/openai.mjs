// The openai Node SDK against a running quernd: `node openai.mjs URL MODEL NAME` runs one test and exits 0 or 1.
// test_openai_node.py starts the daemon, lists the tests by the names below and turns the ends into the tests' protocol.
// The SDK is imported from the folder that NODE_SDK names (build/node), because ES modules do not look at NODE_PATH.
import assert from "node:assert/strict";
import path from "node:path";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(pathToFileURL(path.join(process.env.NODE_SDK ?? "build/node", "x.js")));
const OpenAI = require("openai").OpenAI ?? require("openai");
const [, , url, model, name] = process.argv;
const client = new OpenAI({ baseURL: url + "/v1", apiKey: "none", maxRetries: 0, timeout: 60_000 });
const ask = [{ role: "user", content: "What is the capital of France? Answer in one sentence." }];
const base = { model, messages: ask, temperature: 0, max_tokens: 16 };

async function running() {
  const text = await (await fetch(url + "/metrics")).text();
  return Number(/^vllm:num_requests_running(?:\{[^}]*\})? (\S+)$/m.exec(text)[1]);
}

async function until(check, ms) {
  for (const end = Date.now() + ms; Date.now() < end; await new Promise((r) => setTimeout(r, 20))) if (await check()) return;
  assert.fail(`not within ${ms} ms`);
}

async function refused(kind, status, param, request) {
  await assert.rejects(request, (e) => {
    assert.equal(e.constructor, kind, `class ${e.constructor.name}`);
    assert.equal(e.status, status);
    if (param) assert.equal(e.param, param);
    assert.ok(e.requestID, "request id");
    return true;
  });
}

const tests = {
  async lists_models() {
    const ids = [];
    for await (const m of client.models.list()) ids.push(m.id);
    assert.deepEqual(ids, [model]);
    assert.equal((await client.models.retrieve(model)).object, "model");
  },
  async chat_answers() {
    const r = await client.chat.completions.create(base);
    assert.match(r.choices[0].message.content, /Paris/);
    assert.equal(r.usage.total_tokens, r.usage.prompt_tokens + r.usage.completion_tokens);
    assert.ok(r.usage.prompt_tokens_details.cached_tokens >= 0);
  },
  async stream_adds_up_to_the_answer() {
    const whole = await client.chat.completions.create(base);
    const stream = await client.chat.completions.create({ ...base, stream: true, stream_options: { include_usage: true } });
    let text = "", usage, finishes = [];
    for await (const c of stream) {
      text += c.choices[0]?.delta.content ?? "";
      if (c.choices[0]?.finish_reason) finishes.push(c.choices[0].finish_reason);
      if (c.usage) usage = c.usage;
    }
    assert.equal(text, whole.choices[0].message.content);
    assert.deepEqual(finishes, [whole.choices[0].finish_reason]);
    assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
  },
  async stream_helper_accumulates() {
    const final = await client.chat.completions.stream(base).finalContent();
    assert.equal(final, (await client.chat.completions.create(base)).choices[0].message.content);
  },
  async parallel_streams_equal_single_ones() {
    const one = async (i, stream) => {
      const body = { ...base, temperature: 0.7, seed: i, messages: [{ role: "user", content: `Tell me of ${i} stones.` }] };
      if (!stream) return (await client.chat.completions.create(body)).choices[0].message.content;
      let text = "";
      for await (const c of await client.chat.completions.create({ ...body, stream: true })) text += c.choices[0]?.delta.content ?? "";
      return text;
    };
    const alone = [];
    for (let i = 0; i < 6; i++) alone.push(await one(i, false));
    assert.deepEqual(await Promise.all([0, 1, 2, 3, 4, 5].map((i) => one(i, true))), alone);
  },
  async n_and_logprobs() {
    const r = await client.chat.completions.create({ ...base, n: 2, temperature: 1, seed: 3, logprobs: true, top_logprobs: 2 });
    assert.deepEqual(r.choices.map((c) => c.index), [0, 1]);
    for (const c of r.choices) {
      assert.ok(c.logprobs.content.length > 0);
      for (const t of c.logprobs.content) assert.ok(t.top_logprobs.length === 2 && t.logprob <= 0 && Array.isArray(t.bytes));
    }
  },
  async tools_are_run_by_the_helper() {
    const asked = [];
    const tool = { type: "function", function: { name: "get_weather", description: "Weather of a city.", parse: JSON.parse, strict: true,
      function: (args) => (asked.push(args), "sunny"),
      parameters: { type: "object", properties: { city: { type: "string", enum: ["Paris", "Rome"] } }, required: ["city"], additionalProperties: false } } };
    for (const stream of [false, true]) {
      const runner = client.chat.completions.runTools({ ...base, stream, tools: [tool], max_tokens: 60, tool_choice: { type: "function", function: { name: "get_weather" } } });
      assert.equal((await runner.finalFunctionToolCall()).name, "get_weather");
      assert.equal(await runner.finalFunctionToolCallResult(), "sunny");
      assert.equal(runner.messages.at(-1).role, "tool");
    }
    assert.equal(asked.length, 2);
    for (const a of asked) assert.ok(["Paris", "Rome"].includes(a.city), JSON.stringify(a));
  },
  async errors_have_their_classes() {
    const create = (more) => () => client.chat.completions.create({ ...base, ...more });
    await refused(OpenAI.BadRequestError, 400, "temperature", create({ temperature: 9 }));
    await refused(OpenAI.BadRequestError, 400, "messages", create({ messages: [] }));
    await refused(OpenAI.NotFoundError, 404, "model", create({ model: "none-such" }));
    await refused(OpenAI.NotFoundError, 404, undefined, () => client.models.retrieve("none-such"));
    await refused(OpenAI.BadRequestError, 400, "top_p", create({ top_p: 3, stream: true }));
  },
  async abort_frees_the_work() {
    const stream = await client.chat.completions.create({ ...base, max_tokens: 4000, ignore_eos: true, stream: true });
    let seen = 0;
    for await (const _ of stream) if (++seen === 3) break; // breaking out aborts the request
    await until(async () => (await running()) === 0, 2000);
    const stop = new AbortController();
    const pending = client.chat.completions.create({ ...base, max_tokens: 4000, ignore_eos: true }, { signal: stop.signal });
    pending.catch(() => {});
    await until(async () => (await running()) === 1, 5000);
    stop.abort();
    await assert.rejects(pending, OpenAI.APIUserAbortError);
    await until(async () => (await running()) === 0, 2000);
  },
  async timeout_is_the_sdks() {
    const long = client.chat.completions.create({ ...base, max_tokens: 4000, ignore_eos: true }, { timeout: 500 });
    await assert.rejects(long, OpenAI.APIConnectionTimeoutError);
    await until(async () => (await running()) === 0, 2000);
  },
  async completions_and_request_id() {
    const { data, response } = await client.completions.create({ model, prompt: "One, two,", max_tokens: 4, temperature: 0 }).withResponse();
    assert.equal(data.object, "text_completion");
    assert.ok(response.headers.get("x-request-id"));
    assert.ok(data.choices[0].text.length > 0);
  },
};

if (!tests[name]) {
  console.log(Object.keys(tests).join("\n"));
} else {
  await tests[name]();
}
