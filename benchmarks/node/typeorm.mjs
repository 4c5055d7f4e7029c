// What the benchmarks with TypeORM share: the tables, saving a generation, and the loop that obeys orders: one per line
// of standard input. Each line of output has the rate and the microseconds of processor time for each time.
import "reflect-metadata";
import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";
import { DataSource, EntitySchema } from "typeorm";

const uuid = { type: "uuid" };
const text = { type: "text", nullable: true };
const integer = { type: "int", nullable: true };
const table = (name, columns) =>
  new EntitySchema({ name, tableName: name, columns: { id: { type: "uuid", primary: true }, ...columns } });
export const Project = table("projects", {
  user_id: uuid,
  name: text,
  description: text,
  status: text,
  type: text,
  tags: { type: "jsonb" },
  settings: { type: "jsonb" },
  generation_count: integer,
  created_at: { type: "timestamptz" },
  updated_at: { type: "timestamptz" },
});
export const Session = table("sessions", { session_id: text, user_id: uuid, status: text, expires_at: { type: "timestamptz" } });
const Generation = table("generations", {
  project_id: uuid,
  number: { type: "int", insert: false },
  prompt: text,
  created_by: uuid,
  ended_at: { type: "timestamptz" },
});
const Code = table("generated_codes", {
  project_id: uuid,
  generation_id: uuid,
  variant_index: integer,
  code: text,
  code_stack: text,
  provider: text,
  model: text,
  status: text,
  original_prompt: text,
  prompt_tokens: integer,
  completion_tokens: integer,
  total_tokens: integer,
});
const Usage = table("usage_entries", {
  user_id: uuid,
  key: text,
  project_id: uuid,
  code_id: uuid,
  provider: text,
  model: text,
  code_stack: text,
  outcome: text,
  input_tokens: integer,
  output_tokens: integer,
  cost: { type: "numeric", precision: 14, scale: 8 },
});
const Entry = table("audit_logs", {
  user_id: uuid,
  action: text,
  category: text,
  description: text,
  resource_type: text,
  resource_id: text,
  new_values: { type: "jsonb" },
});

export async function connect(connection, pool) {
  const source = new DataSource({
    type: "postgres",
    ...connection,
    poolSize: pool,
    entities: [Project, Session, Generation, Code, Usage, Entry],
  });
  return source.initialize();
}

// It inserts without reading first, which is the faster of TypeORM's two ways.
export async function save(source, user, projectId, code) {
  const id = randomUUID();
  const codeId = randomUUID();
  const model = { provider: "claude", model: "model", code_stack: "html_tailwind" };
  await source.transaction(async (manager) => {
    const project = await manager.findOneByOrFail(Project, { id: projectId, user_id: user });
    const generation = { id, project_id: project.id, prompt: "A landing page", created_by: user, ended_at: new Date() };
    const made = await manager
      .createQueryBuilder()
      .insert()
      .into(Generation)
      .values(generation)
      .returning("number")
      .execute();
    await manager.insert(Code, {
      ...model,
      id: codeId,
      project_id: project.id,
      generation_id: id,
      variant_index: 0,
      code,
      status: "completed",
      original_prompt: "A landing page",
      prompt_tokens: 900,
      completion_tokens: 4000,
      total_tokens: 4900,
    });
    await manager.insert(Usage, {
      ...model,
      id: randomUUID(),
      user_id: user,
      key: codeId,
      project_id: project.id,
      code_id: codeId,
      outcome: "completed",
      input_tokens: 900,
      output_tokens: 4000,
      cost: "0.0627",
    });
    await manager.insert(Entry, {
      id: randomUUID(),
      user_id: user,
      action: "code_generate",
      category: "data_modification",
      description: "Recorded a generation",
      resource_type: "generation",
      resource_id: id,
      new_values: { number: made.raw[0].number },
    });
  });
}

export async function obey(source, work) {
  const measure = async (workers, seconds) => {
    const started = performance.now();
    const used = process.cpuUsage();
    const end = started + seconds * 1000;
    let done = 0;
    const worker = async () => {
      while (performance.now() < end) {
        await work();
        done++;
      }
    };
    await Promise.all(Array.from({ length: workers }, worker));
    const { user, system } = process.cpuUsage(used);
    return `${done / ((performance.now() - started) / 1000)} ${(user + system) / done}`;
  };
  console.log("ready");
  for await (const line of createInterface({ input: process.stdin })) {
    const { workers, seconds } = JSON.parse(line);
    console.log(await measure(workers, seconds));
  }
  await source.destroy();
}
