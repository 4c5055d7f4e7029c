// The loop of benchmarks/cache.py on node-redis: one order per line of standard input. Each line of output
// has the rate and the microseconds of processor time for each time.
import { createInterface } from "node:readline";
import { createClient } from "redis";

const [url, count, value] = process.argv.slice(2);
const client = createClient({ url });
client.on("error", (error) => {
  console.error(error.message);
  process.exit(1);
});
await client.connect();

const parsed = JSON.parse(value);
let turn = 0;
const nextKey = () => `bench:plain-key-${turn++ % Number(count)}`;
const operations = {
  get: () => client.get(nextKey()),
  set: () => client.set(nextKey(), value, { PX: 600_000 }),
  get_json: async () => JSON.parse(await client.get(nextKey())),
  set_json: () => client.set(nextKey(), JSON.stringify(parsed), { PX: 600_000 }),
};

async function measure(operation, workers, seconds) {
  const started = performance.now();
  const used = process.cpuUsage();
  const end = started + seconds * 1000;
  let done = 0;
  const work = async () => {
    while (performance.now() < end) {
      await operation();
      done++;
    }
  };
  await Promise.all(Array.from({ length: workers }, work));
  const { user, system } = process.cpuUsage(used);
  return `${done / ((performance.now() - started) / 1000)} ${(user + system) / done}`;
}

console.log("ready");
for await (const line of createInterface({ input: process.stdin })) {
  const { verb, workers, seconds } = JSON.parse(line);
  console.log(await measure(operations[verb], workers, seconds));
}
await client.quit();
