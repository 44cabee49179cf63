// Lets mocha load the TypeScript sources as ES modules, with the C core behind `native` as on a device:
// mocha --import ./test/register.mjs FILE…
import { register } from "node:module";

register("ts-node/esm", import.meta.url);
await import("../hosts/node/native.js");
