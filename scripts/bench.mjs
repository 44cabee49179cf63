// npm run bench:NAME: builds what is missing or out of date, then runs tools/bench/NAME.ts; it fails past recorded limits.
import { main, SetupError } from "./run.mjs";
import { setup } from "./setup.mjs";

await main(async () => {
  const [name, ...args] = process.argv.slice(2);
  await setup({ peers: name === "wake" });
  const bench = await import(`../build/tools/bench/${name}.js`);
  try {
    return await bench.main(args);
  } catch (error) {
    throw new SetupError(error.message);
  }
});
