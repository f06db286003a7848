/** Plots: what happens, beat by beat, each beat in several wordings. A beat that begins with "?" is told in half of the stories. */

export interface Plot {
  /** What a reader would ask for: "a story about …". */
  readonly topic: string;
  readonly title: string;
  /** Who leads: somebody grown up, a child, or anybody. */
  readonly lead: "adult" | "child" | "any";
  readonly beats: readonly string[];
  readonly endings: readonly string[];
}

/**
 * Names in the beats: {a} the lead, {b} a second villager, {c} a third, {v} a visitor, {thing} and {gift} objects, {here} and
 * {there} places, {boat}, {pet} and {petName} of the lead, {weather}, {day}, {n} a small number.
 */
export const plots: readonly Plot[] = [
  {
    topic: "something that was lost",
    title: "The Lost {thing}",
    lead: "any",
    beats: [
      "[one {weather} morning|on {day}|one {weather} day], {a} could not find {a.his} {thing}. [{a.he} was sure that {a.he} had left it {here.at}.|{a.he} looked under the bed, behind the door and in every pocket.|it had been on the table the night before.]",
      '?"[Without my {thing} I cannot work|It was a present from my grandmother|I had it yesterday]," {a.he} said. {a.he} was [sad|worried|angry with {a.him}self].',
      '{a} [went|walked|hurried] to {b} and asked for help. "[Where did you see it last?|When did you have it last?]" asked {b}. "[It was {here.at}|I think it was {here.at}]," said {a}.',
      "[so they went there together and looked everywhere.|they looked {here.at}, but they found only {here.find}.|they went {here.to} and searched for an hour.] [the {thing} was not there.|there was no {thing}.]",
      "then {b} had an idea. [the wind had been strong in the night|the tide had been high|a gull had been flying about with something in its beak], so they went {there.to}.",
      "there, between {there.find}, [lay the {thing}|they saw the {thing}|something shone. it was the {thing}]. [it was wet but not broken.|it was dusty, but it was whole.|nothing was wrong with it.]",
    ],
    endings: [
      '{a} [laughed and|smiled and] thanked {b}. "[Two pairs of eyes see more than one|A friend is worth more than a {thing}]," {a.he} said.',
      "{a} was so happy that {a.he} gave {b} {an gift}. from that day on, {a} [kept the {thing} on a hook by the door|looked after {a.his} {thing} better].",
      'They went home together and [drank tea|ate soup], and {b} said: "[Next time, tie it to your belt|Next time, look first and worry later]."',
    ],
  },
  {
    topic: "a storm",
    title: "The Night of the Storm",
    lead: "adult",
    beats: [
      "[in the afternoon the sky turned black.|the gulls flew inland, and {a} knew what that meant.|the wind rose at noon, and by evening it was a storm.] [the waves broke over the long pier.|rain beat against the windows.]",
      "[all the boats came home but one.|Marta counted the boats. one was missing.] {boat} was still out at sea, [and {b} was on it|with {b} on board].",
      '?"[We cannot wait until morning|Somebody must do something]," said {a}. [nobody answered|everybody looked at the floor], but [the fire was lit|the ropes were brought].',
      "{a} [took a lantern and ran|took a rope and ran|put on a coat and ran] to the end of the pier. [far away {a.he} saw a small light.|between two waves {a.he} saw a sail.] [it was going straight to the rocks.|it came nearer and nearer to the rocks.]",
      "Harl [made the lamp of the lighthouse burn as bright as it could|rang the bell of the lighthouse again and again], and {a} [swung the lantern|called as loud as {a.he} could]. [on the boat, {b} saw it and turned the rudder.|at last {b} saw the sign and turned.]",
      "[the hull scraped over a stone, but it held.|a great wave lifted the boat over the rocks.] [{a} threw the rope, and {b} caught it.|then the boat was in the harbour, and many hands pulled it in.]",
    ],
    endings: [
      'In the Blue Anchor, {b} [drank hot soup|sat by the fire] and said: "[I followed your light|Without your light I would be at the bottom of the sea]."',
      "the next morning the sea was [flat|calm|as still as a pond]. {b} came to {a} with {an gift} and [said only one word: thanks|shook {a.his} hand for a long time].",
      'Marta wrote in the log: ["All boats are home."|"A bad night and a good end."]',
    ],
  },
  {
    topic: "an animal in trouble",
    title: "The {animal} on the Rocks",
    lead: "any",
    beats: [
      "{a} was walking {there.at} when {a.he} heard [a strange sound|a small cry]. [{a.he} stopped and listened.|it came from between the stones.]",
      "a young {animal} was caught in [an old net|a piece of rope|a broken basket]. [it could not move.|the more it pulled, the tighter it was held.] [it looked at {a} with big dark eyes.|it was tired and afraid.]",
      '?"[Do not be afraid|Keep still, little one]," said {a}. [the {animal} did not believe it and hissed.|slowly the {animal} became quiet.]',
      "[{a} had no knife with {a.him}, so {a.he} ran to {b}.|alone {a} could not do it, so {a.he} called {b}.] {b} came at once with [a knife and a blanket|a pair of shears].",
      "while {a} held the {animal} in the blanket, {b} cut the strings one by one. [it took a long time.|it was hard work, because the strings were thin and wet.] [at last the {animal} was free.|then the last string broke.]",
      'one [leg|foot] was hurt, so they carried the {animal} to [Ruth|the little hospital]. [Ruth cleaned the wound and put a bandage on it.|"People or animals, it is the same to me," said Ruth.]',
    ],
    endings: [
      "for {n} days {a} brought [fish|water and food] to the {animal}. then it was [strong again|healthy again], and they let it go {there.at}.",
      "the {animal} went back to its home. but sometimes, [in the evening|when the sea is quiet], it comes {there.to} and waits for {a}.",
      "since that day, {a} and {b} [pick up every old rope that they see|never leave a net lying about].",
    ],
  },
  {
    topic: "a thief in the night",
    title: "The Thief in the Night",
    lead: "adult",
    beats: [
      "[for three nights, something had been stolen {here.at}.|every morning something was missing {here.at}.] [first it was a sausage, then a fish, then half a cheese.|first it was a loaf of bread, then a cake, then a whole pie.]",
      '"[There is a thief in the village|Somebody in Wrenmouth is a thief]," said {a}. [people began to lock their doors.|people looked at each other in a strange way.] [some said it was {v}, who had come to the village only a week before.|some said it was {v}, because nobody knew {v.him}.]',
      '{v} was hurt. "[I have never taken anything that was not mine|I would rather be hungry than steal]," {v.he} said. [nobody listened but {b}.|only {b} believed {v.him}.]',
      "so {b} and {a} hid {here.at} and waited. [the clock struck ten, eleven, twelve.|it was dark and cold, and {a} nearly fell asleep.] [then they heard small feet on the floor.|then something moved.]",
      "{b} lifted the lantern. [there stood {owner}'s {beast}, with a fish in its mouth.|in the light sat {owner}'s {beast} and ate.] [it had come in through a hole in the wall.|the window had not been closed well.]",
    ],
    endings: [
      '{a} was ashamed. the next day {a.he} went to {v} and said: "[I am sorry. I spoke before I knew|I was wrong, and you were right]." {v} [smiled and shook {a.his} hand|forgave {a.him}].',
      "all the people laughed. {owner} paid for everything, Bram closed the hole, and {v} was invited to [supper|the best table in the Blue Anchor].",
      'from then on, when something was missing in Wrenmouth, people said: "[First ask the {beast}|Look for four feet before you look for two]."',
    ],
  },
  {
    topic: "a broken boat",
    title: "The Hole in the Hull",
    lead: "adult",
    beats: [
      "{a} wanted to sail to Skerry Isle on {day}. but [when {a.he} looked at the boat, there was water in it|in the morning the boat lay deep in the water]. [there was a hole in the hull as big as a fist.|one plank of the hull was broken.]",
      '{a} went to the boatyard. "[How much will it cost?|Can you mend it?]" {a.he} asked. "[{n} shillings and {n} days|It will take {n} days]," said Ines. [but {a} had no money.|but {a} had only a few pence.]',
      '?"[Then pay me with work|I do not need money. I need help]," said Ines. "[The yard needs sweeping|My tools must be cleaned|I have planks to carry]."',
      "[so every morning {a} carried planks and stirred the tar.|so {a} worked in the boatyard from sunrise to noon.] [{a.he} learned how to bend wood with steam.|{a.he} learned the names of all the tools.] {b} came by and [helped|brought bread and cheese].",
      "on the last day, Ines [put a new plank into the hull|let {a} hammer in the last nail]. [they pushed the boat into the water and waited.|then they rolled the boat down to the water.] [not a drop came in.|the hull was dry.]",
    ],
    endings: [
      '"[Now you can mend the next hole by yourself|A boat that you have mended is really yours]," said Ines, and {a} was proud.',
      "{a} sailed to Skerry Isle at last and brought back [a basket of mussels|a bag of shells] for Ines and {b}.",
      "since then {a} looks at {a.his} boat every evening, [because a small hole is mended faster than a big one|for a small crack is cheaper than a big hole].",
    ],
  },
  {
    topic: "a child who learns something",
    title: "What {a} Learned",
    lead: "child",
    beats: [
      "{a} wanted to learn [how to swim|how to tie a good knot|how to row a boat|how to bake bread|how to whistle like a captain]. [all the other children could do it.|{a.he} had wanted it all summer.]",
      '"[Will you teach me?|Can you show me how?]" {a.he} asked {b}. "[Yes, but you must be patient|Come tomorrow morning]," said {b}.',
      '[the first time it went wrong.|on the first day nothing went well.] [{a} tried again, and it went wrong again.|{a} wanted to cry.] ["I will never learn it," {a.he} said.|{a.he} threw {a.his} cap on the ground.]',
      '{b} [laughed|sat down beside {a.him}]. "[Do you know how often I tried? A hundred times|When I was your age, I could not do it either]," {b.he} said. [so {a} tried again.|{a} thought about this and stood up.]',
      "[on the second day it went better.|day by day it went a little better.] {a} [practised every evening|practised behind the house, where nobody could see {a.him}]. {petLine}",
    ],
    endings: [
      'after {n} days, {a} could do it, and {b} [clapped|said: "I knew it"]. {a} ran home and [showed it to everybody|told the whole village].',
      'and when a smaller child asked {a} for help, {a.he} said: "[Yes, but you must be patient|Come tomorrow morning]."',
      "now {a} knows two things: [how it is done, and that it takes time|that nothing is learned in a day, and that every day counts].",
    ],
  },
  {
    topic: "a message in a bottle",
    title: "The Message in the Bottle",
    lead: "any",
    beats: [
      "after the storm, {a} found a green bottle [on the north beach|between the stones under the pier]. [there was a piece of paper in it.|something white was inside.]",
      '[{a} could not pull the cork out, so {a.he} took the bottle to {b}.|{a.he} showed it to {b}.] together they [opened it|pulled out the cork]. the paper said: "[My name is {v}. I live on an island far in the north. Who are you?|Whoever finds this, please write to me. I am alone with my goats. Your friend {v}.]"',
      '["We must answer," said {a}.|"Somebody far away is lonely," said {b}.] they sat down {here.at} and wrote a long letter. [they wrote about the harbour, the herrings and the weather.|they wrote about everything that had happened that year.]',
      "Clara [put the letter into her bag and sent it with the mail boat|sealed the letter and gave it to the captain of the mail boat]. [weeks went by.|they waited all winter.] [nothing came.|every {day} {a} went to the post office and came back without a letter.]",
      "then, [in spring|one {weather} morning], [a letter came, and a small parcel with it|Clara came running with a parcel]. in the parcel was {an gift}.",
    ],
    endings: [
      "since then {a} and {v} write to each other every month, [and one day they will meet|although they have never met].",
      'and in summer a boat came into the harbour. on the deck stood {v} and [waved|called: "Who of you is {a}?"].',
      "{a} put the green bottle [on the shelf|in the window], where the sun shines through it.",
    ],
  },
  {
    topic: "a quarrel between friends",
    title: "The Quarrel",
    lead: "adult",
    beats: [
      '{a} and {b} had been friends for many years. but [one {weather} day|on {day}] they quarrelled about {an thing}. "[It is mine|You never gave it back]!" said {a}. "[No, it is mine|I gave it back in spring]!" said {b}.',
      "[after that they did not speak to each other.|for {n} weeks they did not say a word to each other.] when {a} came {here.to}, {b} left. [when {b} came into the Blue Anchor, {a} turned away.|the whole village was tired of it.]",
      '?Dora [shook her head|was sad about it]. "[A quarrel is like fog|Two stones do not make bread]," she said. "[Somebody has to light a lamp|Somebody has to begin]."',
      "then {b} [fell ill|broke a leg]. [nobody was there to feed {b.his} {b.pet}.|{b.his} house was cold and the stove was empty.] when {a} heard it, {a.he} [put on {a.his} coat|did not think for long]. {a.he} brought [wood and soup|bread, milk and a warm blanket].",
      "Under the bed, {a} [saw something|found something]. it was the {thing}. [it had been there all the time.|it was covered with dust.] {a} [began to laugh|held it up], and {b} [laughed too|became red in the face].",
    ],
    endings: [
      '"[Keep it|You can have it]," said {a}. "No, [you keep it|it is yours]," said {b}. in the end they hung it up [in the Blue Anchor|on the wall of the net loft], where it belongs to both.',
      "they sat together until midnight, and [nobody remembers who said sorry first|each said that the other had been right].",
      "since then they [share everything|share the {thing}: one has it in summer, the other in winter].",
    ],
  },
  {
    topic: "fog",
    title: "Lost in the Fog",
    lead: "any",
    beats: [
      "the fog came [so fast that {a} could not see {a.his} own hand|in the middle of the day and lay on everything like wool]. {a} was [in a small boat on the bay|on the path through the marsh|on the far side of Gull Hill].",
      '"[Hello!|Is anybody there?]" {a.he} called. [nobody answered.|only the water answered.] [{a.he} did not know where left and right was.|every way looked the same.]',
      '?{a} wanted to [run|go on], but then {a.he} remembered what {b} had said: "[In the fog, stop and use your ears|Fog is not dangerous, but hurry is]."',
      "so {a} stood still and listened. [first there was nothing.|at first {a.he} heard only {a.his} own heart.] [then, very far away, a bell rang.|then {a.he} heard {petName}, {a.his} {pet}.|then there was the sound of a fiddle. it was Wim.]",
      "step by step {a} went [towards the sound|where the sound came from]. [when it became louder, {a.he} knew that the way was right.|twice {a.he} went wrong, and twice {a.he} turned back.] [then there was a light, and in the light stood {b}.|at last {a.he} felt the stones of the pier under {a.his} feet.]",
    ],
    endings: [
      '"[I thought you might need that|I rang it for an hour]," said {b}. {a} [embraced {b.him}|could not say a word].',
      "since that day {a} always carries a whistle, and in fog the people of Wrenmouth ring the bell [every five minutes|until everybody is home].",
      "{a} drank [three cups of tea|a big cup of hot milk] and told the story again and again. each time the fog was a little thicker.",
    ],
  },
  {
    topic: "a feast",
    title: "Before the {feast}",
    lead: "adult",
    beats: [
      "it was the day before the {feast}, and [nothing was ready|everybody was busy]. {a} had promised to bring [the music|the lanterns|the soup|the big table]. [but {a.he} had forgotten it.|but then something went wrong.]",
      '[{a.his} cart lost a wheel.|{petName}, the {pet}, had eaten half of it.|the rain had come through the roof and everything was wet.] "[What shall I do?|Tomorrow everybody will laugh at me]," said {a}.',
      "{b} heard it and told {c}. {c} told [Clara, and Clara told everybody|the neighbours]. [soon there was a knock at the door.|after supper they all came.]",
      "[one brought wood, one brought cloth, one brought candles.|{b} brought {an thing}, {c} brought {an gift}, and Lena brought cake for everybody.] they worked [all night|until the moon went down]. [they sang while they worked.|nobody complained.]",
      "when the sun came up, [everything was ready|it was done]. [it was not as it had been planned. it was better.|it looked a little crooked, but it was beautiful.]",
    ],
    endings: [
      'At the feast {a} stood up and said: "[This was not my work. It was ours|I forgot one thing and found many friends]." everybody [clapped|cheered].',
      "people still say that it was the best {feast} of all. [even Gerta danced.|even the gulls were quiet when Wim played.]",
      "and next year {a} began [a month before|in good time].",
    ],
  },
  {
    topic: "a bargain at the market",
    title: "A Good Bargain",
    lead: "any",
    beats: [
      "on Saturday {a} went to the market with {an thing}. {a.he} wanted to [change it for|sell it and buy] {an gift}. [the sun was shining|it was {weather}], and the market square was full of people.",
      'First {a.he} asked {b}. "[I do not need {an thing}|I have one already], but I need [a dozen eggs|a bag of wool]," said {b}. "[Bring me that, and we can talk|{c} has some]."',
      'so {a} went to {c}. "[You can have it|Take it]," said {c}, "[if you help me to carry these sacks|if you watch my stall for an hour|if you find my hen]." [{a} did it gladly.|it was not easy, but {a} did it.]',
      '?[in the meantime the clock of the church struck twelve.|meanwhile it began to rain.] "[Hurry up|Soon the market will be over]!" somebody called.',
      '{a} ran back to {b} and [gave {b.him} what {b.he} wanted|put everything on {b.his} table]. {b} laughed. "[You have worked hard for it|That is what I call a bargain]," {b.he} said and gave {a} {an gift}.',
    ],
    endings: [
      "and the {thing}? {a} took it home again. [in the end nobody had wanted it|{a.he} had paid with work instead], and {a.he} was glad about it.",
      "in the evening {a} counted: [one hour of work, two new friends and {an gift}|{a.he} had lost nothing and won a friend]. it was a good day.",
      '"[A good bargain makes two people happy|If both sides smile, the price was right]," said Abel, who had seen everything.',
    ],
  },
  {
    topic: "a stranger who comes to the village",
    title: "The Stranger",
    lead: "adult",
    beats: [
      "one {weather} evening a stranger came off the ferry. {v.his} name was {v}, and {v.he} had nothing but {an thing} and a wet coat. [nobody knew where {v.he} came from.|{v.he} asked for a bed, but {v.he} had no money.]",
      '"[You can sleep in my shed|There is room by my stove]," said {a}. [{v} thanked {a.him} and slept for a whole day.|{v} ate three plates of soup and fell asleep.]',
      'the next morning {v} was gone. [the neighbours laughed at {a}.|"I told you so," said {b}.] [but then they heard a noise from the roof.|but behind the house somebody was working.] {v} was [mending the roof|chopping wood|cleaning the well].',
      '"[Whoever eats must work|I pay my debts]," said {v}. [{v.he} could mend clocks, pots and fences.|{v.he} knew songs that nobody in Wrenmouth had ever heard.] [soon everybody had something for {v.him} to do.|soon the children followed {v.him} everywhere.]',
      '?one day a letter came for {v}. [{v.he} read it twice and looked at the sea.|{v.his} family was waiting in the south.] "[I must go|It is time]," {v.he} said.',
    ],
    endings: [
      "{v} stayed in Wrenmouth [until spring|for {n} years]. {v.he} left {an gift} for {a}, and [the roof has never leaked again|the people still sing {v.his} songs].",
      "in the end {v} [stayed|built a small house by the river]. today nobody calls {v.him} a stranger any more.",
      '"[A guest is a gift that you do not know yet|You never know who comes off the ferry]," says {a} when somebody asks about it.',
    ],
  },
  {
    topic: "a race",
    title: "The Race Around the Island",
    lead: "adult",
    beats: [
      "every August the boats race around Skerry Isle. {a} had never won. [{a.his} boat was old and slow.|{b} won every year and talked about it until winter.]",
      'this year {a} [had a new sail from Gerta|had painted {a.his} boat|had studied the tides]. [{b} only laughed.|"Paint does not make it faster," said {b}.] [{petName} the {pet} sat in front and looked ahead.|the wind was good.]',
      "at noon Marta fired the gun, and the boats went off. [{b} was first from the beginning.|soon {b} was far ahead.] {a} was [last but one|only fifth]. but {a.he} [stayed close to the shore, where the current was strong|did not hurry and watched the wind].",
      "behind the island {a} saw that {b}'s mast [had broken|lay in the water]. [the boat turned in the waves, and {b} waved with {b.his} cap.|{b} was holding on to the boat and could not steer.] {a} could [win now|be the first at last]. [nobody would see it behind the island.|the others had not seen anything.]",
      "{a} turned {a.his} boat around. [{a.he} threw {b} a rope and pulled the broken boat home.|{a.he} took {b} on board.] they came in last of all, [long after the others|when the sun was going down].",
    ],
    endings: [
      '"[The cup goes to the fastest|The race was won by the fastest]," said Marta, "but [the feast tonight is for {a}|the best sailor of the day is {a}]." and {b} [clapped the loudest|carried {a} on {b.his} shoulders].',
      "next year {b} [lent {a} {b.his} best sail|let {a} start first]. it was the first year in which {b} did not talk about winning.",
    ],
  },
  {
    topic: "a secret",
    title: "The Box Under the Floor",
    lead: "any",
    beats: [
      "when {a} was [cleaning|playing|looking for a mouse] {here.at}, {a.he} found a loose board. under the board was a small iron box. [it was locked.|it was heavy, and something moved in it.]",
      '{a} took it to Osk, [who could open any lock|because he knew about locks]. [he tried one key after the other.|he took his smallest hammer.] "[There|Now we shall see]," he said. [inside were an old letter and {an gift}.|inside they found {an gift} and an old letter.]',
      'The letter said: "[Whoever finds this, take it to {c}, for it was always meant for {c.him}|This belongs to the family of {c}. I took it in a bad year and was ashamed all my life]."',
      '?[{a} would have liked to keep it.|"Nobody would ever know," said a small voice in {a.his} head.] but [{a.he} thought of {c}|a letter is a promise].',
      'so {a} went to {c} and [put the box on the table|told {c.him} everything]. {c} [read the letter and was quiet for a long time|had tears in {c.his} eyes]. "[My grandfather looked for it all his life|Now I know what happened]," {c.he} said.',
    ],
    endings: [
      "{c} gave {a} the iron box. today {a} keeps [{a.his} own secrets|shells and letters] in it.",
      "that evening {c} told the whole story in the Blue Anchor, [and everybody wanted to see the box|and even Jory was silent].",
      '"[You could have kept it|Many would have kept it]," said {c}. "[Yes|I know]," said {a}, "[but then I would have had a secret too|but then I could not sleep]."',
    ],
  },
  {
    topic: "somebody who is ill",
    title: "Soup for {b}",
    lead: "any",
    beats: [
      '{b} was ill. [{b.he} lay in bed and coughed.|{b.he} had a fever and could not stand up.] [{b.his} place {here.at} was empty.|people missed {b.him} {here.at}.] Ruth said: "[{b.he} needs rest, warmth and good soup|Rest and soup, that is the best medicine]."',
      '{a} wanted to cook the soup. but {a.he} [had never cooked soup before|did not know how it was made]. so {a.he} asked Agnes. "[Take an onion, a fish and time|The secret is time]," said Agnes. "[And do not forget the salt|And a little pepper]."',
      "{a} [bought an onion at the market|asked Abel for salt and an onion] and cut it up [until {a.his} eyes were full of tears|very small]. Tobin gave {a.him} a fish. [soon the whole house smelled of soup.|the soup boiled for an hour.]",
      '?then {petName}, the {pet}, [jumped on the table and pushed over the pot|came in, and half of the soup was gone]. {a} had to begin again. [this time {a.he} closed the door.|"A good soup needs two tries," {a.he} said.]',
      "in the evening {a} carried the pot through the {weather} village to {b}. {b} [ate one spoon, then another, then everything|smiled for the first time in days].",
    ],
    endings: [
      'after {n} days {b} was healthy again. "[It was the soup|Ruth\'s medicine was good, but your soup was better]," {b.he} said.',
      "and when {a} was ill in winter, [guess who came with a pot of soup|{b} stood at the door with a pot of soup].",
    ],
  },
  {
    topic: "a clever idea",
    title: "{a} Has an Idea",
    lead: "any",
    beats: [
      "[there was a problem in Wrenmouth: the well in the market square was dry.|one spring the gulls stole so many fish that the fishermen lost half of their catch.|in that winter the harbour froze, and no boat could go out.] [nobody knew what to do.|people talked about it for days.]",
      '?"[We must wait|It will be better next year]," said some. "[We must pay somebody from the city|We need a machine]," said others. {a} said nothing and [walked {there.to}|looked out of the window].',
      'there {a.he} saw how [a spider mended its web|the water found its way around a stone|two children moved a heavy log with a stick]. "[That is it|Now I know]!" {a.he} cried and ran to {b}.',
      '{b} listened and [scratched {b.his} head|laughed at first]. "[It could work|It is so simple that nobody thought of it]," {b.he} said. together they took {an thing}, {an gift} and a long rope and [worked until dark|went to work].',
      '[the next day everybody came to look.|the people stood around and shook their heads.] [at first nothing happened.|{a} pulled the rope.] then [it worked|somebody shouted: "It works!"].',
    ],
    endings: [
      '"How did you think of that?" asked Marta. "[I did not think. I looked|I only watched]," said {a}.',
      'since then they do it so every year, and they call it ["{a}\'s way"|"the way of {a}"].',
      'and {b} says: "[Big problems sometimes need small ideas|Good ideas are like fish. You must be quiet to catch them]."',
    ],
  },
];
