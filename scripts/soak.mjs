// npm run soak: builds what is missing or out of date, then runs the soak of tools/soak.
import { main, SetupError } from "./run.mjs";
import { setup } from "./setup.mjs";

await main(async () => {
  await setup({ tests: process.argv.includes("sanitized") });
  const soak = await import("../build/tools/soak/main.js");
  try {
    return await soak.main(process.argv.slice(2));
  } catch (error) {
    throw new SetupError(`soak: ${error.message}`);
  }
});
