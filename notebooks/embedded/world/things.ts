/** Boats, places, goods, words and weather of Wrenmouth. Facts here are the same in every text. */

export interface Boat {
  readonly [field: string]: unknown;
  readonly name: string;
  readonly kind: string;
  readonly colour: string;
  readonly owner: string;
  readonly crew: number;
}

/** The boats of the harbour. */
export const boats: readonly Boat[] = [
  { name: "the Kestrel", kind: "fishing boat", colour: "red", owner: "Tobin", crew: 3 },
  { name: "the Grey Goose", kind: "ferry", colour: "grey", owner: "Yara", crew: 2 },
  { name: "the Marigold", kind: "sailing boat", colour: "orange", owner: "Ines", crew: 2 },
  { name: "the Patience", kind: "rowing boat", colour: "green", owner: "Harl", crew: 1 },
  { name: "the Sea Cook", kind: "lobster boat", colour: "white", owner: "Jory", crew: 2 },
  { name: "the Swift", kind: "pilot boat", colour: "blue", owner: "Marta", crew: 4 },
  { name: "the Old Otter", kind: "barge", colour: "brown", owner: "Hugo", crew: 2 },
  { name: "the Silver Perch", kind: "fishing boat", colour: "silver", owner: "Emil", crew: 3 },
];

/** Boats that come from elsewhere. */
export const strangers: readonly string[] =
  "the North Star|the Lady Anne|the Cormorant|the Three Brothers|the Blue Heron|the Sea Rose|the Good Hope|the Curlew|the Black Swan|the Merry Widow|the Dolphin|the Amber Queen".split(
    "|",
  );

export interface Place {
  readonly [field: string]: unknown;
  readonly name: string;
  /** "at the forge", "on Gull Hill". */
  readonly at: string;
  readonly to: string;
  readonly about: string;
  readonly find: string;
}

const place = (name: string, at: string, about: string, find: string): Place => ({
  name,
  at: `${at} ${name}`,
  to: `to ${name}`,
  about,
  find,
});

/** Places of the village, each with what it is and what is found there. */
export const places: readonly Place[] = [
  place(
    "the long pier",
    "on",
    "It is made of old oak and reaches far out into the bay.",
    "boats, gulls and children with fishing lines",
  ),
  place(
    "the fish quay",
    "on",
    "The fishing boats land their catch there every morning.",
    "baskets of herring and hungry cats",
  ),
  place("the market square", "in", "The market is held there every Saturday.", "stalls, baskets and the old well"),
  place("the Blue Anchor", "in", "It is the only inn of the village.", "fish soup, warm beer and many stories"),
  place(
    "the lighthouse",
    "at",
    "It stands on Gull Hill and its lamp can be seen for twelve miles.",
    "a winding stair and a great lamp",
  ),
  place("Gull Hill", "on", "It is the highest hill above the bay.", "sheep and yellow flowers"),
  place("the boatyard", "in", "Ines builds and mends boats there.", "planks, tar and half a boat"),
  place("the forge", "at", "Osk makes hooks, nails and anchors there.", "a hot fire and a heavy anvil"),
  place("the bakery", "in", "Lena lights the oven there at four in the morning.", "warm bread and plum cake"),
  place("the mill", "at", "It stands on the River Wren and turns with the water.", "sacks of flour and white dust"),
  place("the school", "at", "It has one room, two stoves and eighteen pupils.", "maps, slates and a tortoise"),
  place("the net loft", "in", "The nets are dried and mended there.", "nets, floats and Emil's jokes"),
  place("the sail loft", "in", "Gerta and Finn sew sails there.", "needles, thread and white canvas"),
  place(
    "the marsh",
    "by",
    "It lies north of the village, and its paths change with the tide.",
    "reeds, herons and Wim's bees",
  ),
  place("the north beach", "on", "It is a long beach of grey sand.", "shells, driftwood and old bottles"),
  place("Skerry Isle", "on", "It is a small island in the bay where nobody lives.", "seals, rocks and a ruined tower"),
  place(
    "the village shop",
    "in",
    "Abel sells everything there, from nails to sugar.",
    "jars, ropes, candles and a canary",
  ),
  place("the post office", "in", "Clara sorts the letters there before sunrise.", "letters, parcels and news"),
  place("the woods", "in", "They begin behind Dora's cottage and go on for miles.", "mushrooms, deer and old oaks"),
  place("the harbour office", "in", "Marta writes the harbour log there.", "charts, flags and a brass telescope"),
];

/** Price in pence of one at the Saturday market. */
export const prices: readonly { one: string; many: string; pence: number }[] = [
  { one: "herring", many: "herrings", pence: 2 },
  { one: "loaf of bread", many: "loaves of bread", pence: 4 },
  { one: "egg", many: "eggs", pence: 1 },
  { one: "goat cheese", many: "goat cheeses", pence: 9 },
  { one: "jar of honey", many: "jars of honey", pence: 8 },
  { one: "candle", many: "candles", pence: 3 },
  { one: "plum cake", many: "plum cakes", pence: 6 },
  { one: "lobster", many: "lobsters", pence: 12 },
  { one: "ball of twine", many: "balls of twine", pence: 5 },
  { one: "apple", many: "apples", pence: 1 },
  { one: "wool blanket", many: "wool blankets", pence: 20 },
  { one: "basket", many: "baskets", pence: 7 },
];

/** Words of the harbour with their meanings. */
export const words: readonly (readonly [word: string, meaning: string])[] = [
  ["anchor", "a heavy iron hook that holds a boat in its place"],
  ["tide", "the rising and falling of the sea, twice a day"],
  ["pier", "a long walk of wood or stone that is built out into the water"],
  ["net", "a web of strong string for catching fish"],
  ["sail", "a large piece of cloth that catches the wind and moves a boat"],
  ["oar", "a long piece of wood for rowing a boat"],
  ["lighthouse", "a tower with a strong lamp that shows boats the way at night"],
  ["compass", "a small instrument whose needle points to the north"],
  ["fog", "a cloud that lies on the ground or on the sea"],
  ["harbour", "a place where boats are safe from wind and waves"],
  ["buoy", "a float that marks the way for boats"],
  ["ferry", "a boat that carries people and goods across the water"],
  ["forge", "a workshop where iron is made hot and hammered into shape"],
  ["mill", "a building where corn is ground into flour"],
  ["loom", "a machine for weaving cloth"],
  ["crook", "a long stick with a hook that a shepherd carries"],
  ["apprentice", "a young person who learns a trade from a master"],
  ["barge", "a flat boat that carries heavy goods on a river"],
  ["hull", "the body of a boat"],
  ["mast", "the tall pole that holds the sails of a boat"],
  ["deck", "the floor of a boat"],
  ["keel", "the long beam at the bottom of a boat"],
  ["rudder", "a flat board at the back of a boat for steering it"],
  ["storm", "very bad weather with strong wind and rain"],
  ["wreck", "a boat that was broken by the sea"],
  ["captain", "the person who commands a ship"],
  ["crew", "the people who work on a boat"],
  ["lantern", "a lamp that can be carried by hand"],
  ["marsh", "low land that is always wet"],
  ["island", "land with water all around it"],
  ["chart", "a map of the sea"],
  ["knot", "a place where ropes are tied together"],
  ["log", "a book in which the events of every day are written down"],
  ["toll", "money that is paid for using a road or a bridge"],
  ["gull", "a large white and grey bird that lives by the sea"],
  ["seal", "a sea animal with fur that likes to lie on rocks"],
];

const pairs = (text: string): [string, string][] => text.split("|").map((pair) => pair.split(" ") as [string, string]);

/** Pairs of opposite words. */
export const opposites: readonly (readonly [string, string])[] = pairs(
  "hot cold|big small|old young|early late|wet dry|dark light|heavy light|full empty|fast slow|happy sad|open closed|strong weak|high low|long short|clean dirty|safe dangerous|deep shallow|loud quiet|brave afraid|north south|east west|day night|summer winter|friend enemy|first last|sweet sour|rich poor|soft hard|near far|new old",
);

/** Verbs with their past, for the language lessons of the school. */
export const verbs: readonly (readonly [base: string, past: string])[] = pairs(
  "go went|see saw|catch caught|sell sold|buy bought|find found|lose lost|bring brought|build built|write wrote|sing sang|swim swam|mend mended|bake baked|row rowed|sail sailed|walk walked|help helped|carry carried|hear heard|take took|give gave|make made|know knew|tell told|keep kept|sleep slept|eat ate|drink drank|come came",
);

/** What each day of the week is for. */
export const days: readonly (readonly [day: string, custom: string])[] = [
  ["Monday", "the nets are washed"],
  ["Tuesday", "the mail boat comes in"],
  ["Wednesday", "the children practise songs with Wim"],
  ["Thursday", "Ruth sees the sick without asking for money"],
  ["Friday", "there is fish soup for everybody in the Blue Anchor"],
  ["Saturday", "the market is held in the market square"],
  ["Sunday", "the boats stay in the harbour and everybody rests"],
];

/** Feasts of the year. */
export const feasts: readonly (readonly [feast: string, when: string, what: string])[] = [
  ["the Lantern Feast", "in November", "everybody carries a lantern to the lighthouse"],
  ["the Herring Feast", "in May", "the first herrings are smoked and shared"],
  ["the Boat Race", "in August", "all boats race around Skerry Isle"],
  ["the Honey Day", "in September", "Wim brings the new honey and plays the fiddle"],
  ["the Bread Night", "in December", "Lena bakes a loaf as long as a boat"],
];

export const weathers: readonly string[] =
  "sunny|windy|foggy|rainy|stormy|cold and clear|grey and still|warm|snowy|cloudy".split("|");

export const times: readonly string[] =
  "early in the morning|at noon|in the afternoon|in the evening|at night|before sunrise|after supper|at low tide|at high tide|on Monday|on Tuesday|on Wednesday|on Thursday|on Friday|on Saturday|on Sunday".split(
    "|",
  );

/** Things that are lost, found, given, carried. */
export const objects: readonly string[] =
  "lantern|compass|silver ring|blue cup|wooden box|letter|key|wool hat|knife|basket|kite|drum|old map|brass bell|blanket|hammer|bucket|rope|mirror|clock|pair of boots|red scarf|bag of flour|jar of honey|fishing line|oar|whistle|spoon|book|umbrella".split(
    "|",
  );
