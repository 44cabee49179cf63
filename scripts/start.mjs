// npm start: builds what is missing or out of date, then runs the timeline of tools/timeline.ts.
import { engineOf, main, SetupError } from "./run.mjs";
import { setup } from "./setup.mjs";

await main(async () => {
  await setup({ engine: engineOf() });
  const timeline = await import("../build/tools/timeline.js");
  try {
    await timeline.main(process.argv.slice(2));
  } catch (error) {
    throw new SetupError(error.message);
  }
});
