// npm run factory: builds what is missing or out of date, then provisions a device (tools/factory.ts).
import { main } from "./run.mjs";
import { setup } from "./setup.mjs";

await main(async () => {
  await setup();
  const { main: provision } = await import("../build/tools/factory.js");
  return provision(process.argv.slice(2));
});
