/** The people of Wrenmouth, and the names of those who come by. */

export interface Person {
  readonly [field: string]: unknown;
  readonly name: string;
  readonly he: "he" | "she";
  readonly him: "him" | "her";
  readonly his: "his" | "her";
}

/** Somebody who lives in the village: what is said here is a fact of the world, the same in every text. */
export interface Villager extends Person {
  readonly age: number;
  readonly trade: string;
  /** What the trade does all day: "bakes bread", and the same in the past. */
  readonly does: string;
  readonly did: string;
  /** Where the work is done, with its preposition. */
  readonly work: string;
  readonly tool: string;
  /** The house, with its preposition. */
  readonly home: string;
  readonly likes: string;
  readonly fears: string;
  readonly trait: string;
  readonly look: string;
  readonly pet: string;
  readonly petName: string;
  readonly kin: string;
}

type Row = readonly [
  name: string,
  he: "he" | "she",
  age: number,
  trade: string,
  does: string,
  did: string,
  work: string,
  tool: string,
  home: string,
  likes: string,
  fears: string,
  trait: string,
  look: string,
  pet: string,
  petName: string,
  kin: string,
];

/** A person by name and pronoun. */
export function person(name: string, he: "he" | "she"): Person {
  return he === "he" ? { name, he, him: "him", his: "his" } : { name, he, him: "her", his: "her" };
}

// biome-ignore format: a table reads best with one line a person
const rows: readonly Row[] = [
  ["Marta", "she", 61, "harbour master", "keeps the harbour in order", "kept the harbour in order", "in the harbour office", "brass telescope", "in the white house by the long pier", "strong tea", "fog", "strict but fair", "silver hair and a blue coat", "cat", "Pilot", "the older sister of Emil"],
  ["Tobin", "he", 34, "fisherman", "catches herring", "caught herring", "on the Kestrel", "net", "in the red house on Fish Lane", "smoked herring", "thin ice", "cheerful", "a red beard", "dog", "Biscuit", "the father of Pia"],
  ["Ines", "she", 29, "boatbuilder", "builds boats", "built boats", "in the boatyard", "adze", "in the loft above the boatyard", "fresh sawdust", "bad debts", "patient", "short brown hair", "goose", "Admiral", "the older sister of Sam"],
  ["Harl", "he", 78, "lighthouse keeper", "tends the lamp", "tended the lamp", "in the lighthouse", "oil can", "in the lighthouse on Gull Hill", "old songs", "dark nights without a lamp", "quiet", "a white beard and a pipe", "owl", "Moth", "the grandfather of Nell"],
  ["Lena", "she", 42, "baker", "bakes bread", "baked bread", "in the bakery", "bread oven", "in the yellow house beside the bakery", "plum cake", "mice", "kind", "floury hands and round cheeks", "hen", "Button", "the mother of Finn"],
  ["Osk", "he", 50, "blacksmith", "makes hooks and anchors", "made hooks and anchors", "in the forge", "hammer", "in the stone house behind the forge", "onion soup", "thunder", "strong", "broad shoulders and a leather apron", "horse", "Ember", "the uncle of Kit"],
  ["Pia", "she", 9, "pupil", "learns to read and write", "learned to read and write", "in the school", "slate", "in the red house on Fish Lane", "sea shells", "spiders", "curious", "two brown plaits", "rabbit", "Clover", "the daughter of Tobin"],
  ["Sam", "he", 11, "pupil", "learns to read and write", "learned to read and write", "in the school", "pencil", "in the loft above the boatyard", "toy boats", "the dark", "brave", "freckles and a green cap", "frog", "Captain", "the younger brother of Ines"],
  ["Ruth", "she", 47, "doctor", "looks after the sick", "looked after the sick", "in the little hospital", "black bag", "in the brick house on Church Street", "quiet mornings", "fever in winter", "calm", "grey eyes and round glasses", "parrot", "Pepper", "the wife of Hugo"],
  ["Finn", "he", 19, "apprentice", "learns to sew sails", "learned to sew sails", "in the sail loft", "needle", "in the yellow house beside the bakery", "fast boats", "snakes", "clumsy but willing", "curly black hair", "mouse", "Crumb", "the son of Lena"],
  ["Gerta", "she", 58, "sailmaker", "sews sails", "sewed sails", "in the sail loft", "pair of shears", "in the grey house on Rope Street", "ginger tea", "moths", "stern", "a long grey braid", "cat", "Thimble", "the aunt of Finn"],
  ["Bram", "he", 39, "carpenter", "mends doors and roofs", "mended doors and roofs", "in the workshop on Rope Street", "saw", "in the wooden house by the mill", "apple pie", "high ladders", "careful", "a pencil behind his ear", "donkey", "Nail", "the brother of Rosa"],
  ["Nell", "she", 25, "teacher", "teaches the children", "taught the children", "in the school", "map", "in the room above the school", "long books", "loud geese", "clever", "a yellow scarf", "tortoise", "Comma", "the granddaughter of Harl"],
  ["Jory", "he", 44, "innkeeper", "runs the Blue Anchor", "ran the Blue Anchor", "in the Blue Anchor", "beer jug", "in the rooms above the Blue Anchor", "good company", "empty barrels", "talkative", "a round belly and a loud laugh", "dog", "Barrel", "the husband of Agnes"],
  ["Agnes", "she", 41, "cook", "cooks fish soup", "cooked fish soup", "in the kitchen of the Blue Anchor", "copper pot", "in the rooms above the Blue Anchor", "hot pepper", "cold soup", "hot-tempered", "red cheeks and a white apron", "cat", "Ladle", "the wife of Jory"],
  ["Emil", "he", 57, "net mender", "mends nets", "mended nets", "in the net loft", "wooden needle", "in the blue house by the fish quay", "card games", "deep water", "funny", "a bent nose and a wool hat", "gull", "Beggar", "the younger brother of Marta"],
  ["Clara", "she", 33, "postwoman", "carries the letters", "carried the letters", "in the post office", "leather bag", "in the narrow house on Church Street", "news from far away", "angry dogs", "quick", "strong legs and a red cap", "pony", "Stamp", "the best friend of Lena"],
  ["Hugo", "he", 52, "miller", "grinds the corn", "ground the corn", "in the mill", "millstone", "in the brick house on Church Street", "windy days", "fire", "slow and steady", "dusty eyebrows", "goat", "Bell", "the husband of Ruth"],
  ["Yara", "she", 27, "ferry pilot", "steers the ferry", "steered the ferry", "on the ferry", "compass", "in the green house on the river bank", "sunrise on the water", "rocks under the water", "bold", "a gold earring", "dog", "Anchor", "the cousin of Tobin"],
  ["Abel", "he", 63, "shopkeeper", "sells everything from nails to sugar", "sold everything from nails to sugar", "in the village shop", "pair of scales", "in the flat behind the shop", "neat shelves", "thieves", "thrifty", "a bald head and a striped waistcoat", "canary", "Penny", "the neighbour of Clara"],
  ["Dora", "she", 70, "weaver", "weaves blankets", "wove blankets", "at the loom in her cottage", "loom", "in the cottage at the edge of the woods", "telling stories", "forgetting names", "wise", "a green shawl", "sheep", "Fog", "the grandmother of Wim"],
  ["Kit", "he", 15, "shepherd", "watches the sheep", "watched the sheep", "on Gull Hill", "crook", "on the farm behind Gull Hill", "playing the flute", "wolves in stories", "dreamy", "a straw hat", "sheepdog", "Whistle", "the son of Rosa"],
  ["Rosa", "she", 38, "cheesemaker", "makes goat cheese", "made goat cheese", "in the dairy", "cheese cloth", "on the farm behind Gull Hill", "dancing", "dry summers", "generous", "a blue headscarf", "cow", "Daisy", "the mother of Kit"],
  ["Wim", "he", 31, "beekeeper", "looks after the bees", "looked after the bees", "in the garden by the marsh", "smoke pot", "in the hut by the marsh", "fiddle music", "cold springs", "gentle", "a fiddle on his back", "duck", "Puddle", "the grandson of Dora"],
];

export const villagers: readonly Villager[] = rows.map((r) => ({
  ...person(r[0], r[1]),
  age: r[2],
  trade: r[3],
  does: r[4],
  did: r[5],
  work: r[6],
  tool: r[7],
  home: r[8],
  likes: r[9],
  fears: r[10],
  trait: r[11],
  look: r[12],
  pet: r[13],
  petName: r[14],
  kin: r[15],
}));

/** A villager by name. */
export function villager(name: string): Villager {
  return villagers.find((v) => v.name === name)!;
}

/** Grown-ups, children: not every part of a story suits both. */
export const adults: readonly Villager[] = villagers.filter((v) => v.age >= 18);
export const children: readonly Villager[] = villagers.filter((v) => v.age < 18);

const women =
  "Ada Bea Cora Edda Fay Greta Hanna Ivy Jana Kaya Lucy Mina Nora Olga Petra Sara Tilda Una Vera Willa Zoe Ella";
const men = "Aron Ben Colm Dirk Erik Felix Gus Henk Ivan Jan Karl Leo Max Nils Otto Paul Rolf Sven Tom Udo Viktor Adam";

/** People from elsewhere, of whom nothing is known but the name. */
export const visitors: readonly Person[] = [
  ...women.split(" ").map((name) => person(name, "she")),
  ...men.split(" ").map((name) => person(name, "he")),
];
