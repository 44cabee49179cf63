// npm run lab: builds what is missing or out of date, then serves the page that shows the simulated device (tools/lab).
import { main, SetupError } from "./run.mjs";
import { setup } from "./setup.mjs";

await main(async () => {
  await setup();
  const lab = await import("../build/tools/lab/main.js");
  try {
    await lab.main(process.argv.slice(2));
  } catch (error) {
    throw new SetupError(error.message);
  }
});
