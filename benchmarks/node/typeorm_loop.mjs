// Saving a generation with TypeORM, for benchmarks/projects.py.
import { connect, obey, save } from "./typeorm.mjs";

const { connection, projects, user, code, pool } = JSON.parse(process.argv[2]);
const source = await connect(connection, pool);
let turn = 0;
await obey(source, () => save(source, user, projects[turn++ % projects.length], code));
