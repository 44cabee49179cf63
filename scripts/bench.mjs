// npm run bench: builds what is missing or out of date, then runs tools/bench/main.ts.
import { main, SetupError } from "./run.mjs";
import { setup } from "./setup.mjs";

await main(async () => {
  await setup({ peers: true });
  const bench = await import("../build/tools/bench/main.js");
  try {
    return await bench.main(process.argv.slice(2));
  } catch (error) {
    throw new SetupError(error.message);
  }
});
