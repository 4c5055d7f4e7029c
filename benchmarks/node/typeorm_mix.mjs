// The mix of benchmarks/mix.py with TypeORM.
import { randomBytes, randomUUID } from "node:crypto";
import { open, rename } from "node:fs/promises";
import { MoreThan, Not } from "typeorm";
import { Project, Session, connect, obey, save } from "./typeorm.mjs";

const { connection, people, code, pool, requests, folder } = JSON.parse(process.argv[2]);
const source = await connect(connection, pool);
const file = randomBytes(200_000);

async function check(person) {
  const where = { session_id: person.session, expires_at: MoreThan(new Date()) };
  const session = await source.manager.findOneByOrFail(Session, where);
  if (session.user_id !== person.user) throw new Error("somebody else's session");
}

async function put() {
  const name = `${folder}/${randomUUID()}`;
  const written = await open(`${name}.part`, "wx");
  await written.writeFile(file);
  await written.sync();
  await written.close();
  await rename(`${name}.part`, name);
  const place = await open(folder, "r");
  await place.sync();
  await place.close();
}

let turn = 0;
const work = {
  async open(person) {
    await check(person);
    await source.manager.findOneByOrFail(Project, { id: person.projects[turn % person.projects.length] });
  },
  async list(person) {
    await check(person);
    const found = await source.manager.find(Project, {
      where: { user_id: person.user, status: Not("deleted") },
      order: { updated_at: "DESC", id: "DESC" },
      take: 50,
    });
    if (found.length !== 50) throw new Error("not a whole page");
  },
  save: (person) => save(source, person.user, person.written[turn % person.written.length], code),
  put,
};
await obey(source, () => {
  turn++;
  return work[requests[(turn * 37) % requests.length]](people[turn % people.length]);
});
