/**
 * What @peculiar/x509 demands of the global `Reflect` before it loads: it finds its algorithms by decorators, and asks
 * for the metadata of their constructors. None of them takes arguments, so there is none. Import this before it:
 *
 *     import "./reflect.js";
 */

const none = () => undefined;

if (!("getMetadata" in Reflect)) {
  Object.assign(Reflect, { getMetadata: none, getOwnMetadata: none, defineMetadata: none });
}
