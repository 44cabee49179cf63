/** The app that gets flashed: wake, do what is due, sleep. */

import { openDevice } from "torpor/device";
import { live } from "torpor/hosts/moddable/app";

live(openDevice());
