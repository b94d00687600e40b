"""Words of English captions that name people, and words that show what stands around them. Data of `class_word.py`."""

from likeness.generation.inputs.prompts import CLASS_WORDS


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MALE_NOUNS = _words(
    "man boy gentleman guy male grandfather grandpa father dad daddy son brother husband uncle nephew boyfriend groom "
    "king prince wizard actor waiter cowboy policeman fisherman businessman monk priest emperor lad bloke fellow"
)
FEMALE_NOUNS = _words(
    "woman girl lady gal female grandmother grandma mother mom mum mommy daughter sister wife aunt niece girlfriend "
    "bride queen princess witch actress waitress cowgirl policewoman businesswoman heroine ballerina nun empress "
    "hostess stewardess maid schoolgirl"
)
ADULT_NOUNS = _words("man woman gentleman lady guy gal male female person human adult individual figure subject")
"""Nouns that can refer back to any adult: "a chef ... the man"."""
CHILD_NOUNS = _words("boy girl child kid toddler baby infant teenager teen youth lad youngster")
GENERIC_NOUNS = _words("person human individual figure subject")
"""Nouns that can refer back to anybody."""
_OCCUPATIONS = _words(
    "accountant acrobat anchor announcer architect archer attorney author baker ballerina banker barber bartender "
    "biker blacksmith boxer builder butcher butler captain cashier carpenter cellist celebrity coach comedian "
    "commuter composer conductor courier cyclist detective dentist designer diver driver drummer electrician engineer "
    "executive explorer florist gardener geologist golfer guard guide gymnast hairdresser hiker host hunter "
    "instructor janitor journalist judge juggler lawyer librarian lifeguard magician maid mechanic model monk nanny "
    "narrator nun operator paramedic patient pharmacist photographer physician plumber poet politician potter "
    "presenter president priest professor programmer rancher rapper receptionist referee reporter researcher rider "
    "rower sailor salesperson sculptor seamstress secretary shopkeeper skateboarder skater skier sorcerer speaker "
    "sprinter surfer surgeon swimmer tailor technician tourist trainer trumpeter vendor vet veterinarian violinist "
    "vlogger welder wrestler writer youtuber"
)
_OTHERS = _words(
    "individual youth lad bloke fellow youngster pensioner senior schoolgirl schoolboy girlfriend boyfriend nephew "
    "niece mum mommy daddy grandson granddaughter cousin neighbor pirate viking clown emperor empress nun cowgirl "
    "hostess stewardess"
)
SINGULAR_NOUNS = frozenset(CLASS_WORDS.split("|")) | _OCCUPATIONS | _OTHERS | MALE_NOUNS | FEMALE_NOUNS
"""Nouns for one person. Words that end in "man" or "woman" count as well, less `NON_PERSON_WORDS`."""
AMBIGUOUS_NOUNS = _words("figure subject")
"""Nouns that refer back to a person, but alone name none for certain."""
NON_PERSON_WORDS = _words("snowman german roman norman ottoman talisman caiman batman superman spiderman merman")
"""Words that end in "man" all the same."""
PERSON_WORDS_AS_VERBS = _words(
    "anchor anchors captain coach coaches cook cooks father fathers guard guards guide guides host hosts judge "
    "judges kid model models mother mothers nurse nurses patient pilot pilots subject subjects tailor tailors train "
    "tutor figure figures author authors partner partners butcher"
)
"""Person words, and their plurals, that are verbs as well."""
CROWD_WORDS = _words(
    "people crowd audience others spectators onlookers passersby passers-by pedestrians bystanders fans viewers"
)
"""Words for people in the background, who are nobody in particular."""
PLURAL_NOUNS = _words(
    "men women children babies ladies gentlemen people couple couples twins duo trio pair family families group "
    "groups team friends siblings parents grandparents guests folks wives policemen policewomen firefighters "
    "businessmen newlyweds colleagues classmates"
)
"""Words for several people, besides plurals in s."""
GROUP_NOUNS = _words("couple pair group team family trio duo")
"""Words of `PLURAL_NOUNS` that are followed by "of" when they count something else."""

INDEFINITE = _words("a an one some another each every any no")
DEFINITE = _words("the this that same said")
POSSESSIVE = _words("his her their my your our its")
OTHER_DETERMINERS = _words("another second third fourth other different")
"""Words that introduce somebody else."""
DEPICTIONS = _words(
    "statue statues sculpture painting paintings drawing drawings sketch poster posters mural figurine doll cartoon "
    "bust mannequin illustration silhouette cutout hologram puppet toy memory dream"
)
"""What shows a person who is not there, in "a statue of a man". A photo or video of somebody shows that person."""
ROLE_PARTICIPLES = _words(
    "dressed disguised costumed works working worked acts acting poses posing such known serves serving"
)
"""Words before "as a", after which comes a role of somebody already named."""
LINKING_VERBS = _words("is was be being becomes became remains")
INTRODUCING_SUBJECTS = _words("this there here it that who")
"""Subjects of "is a" that introduce somebody: "this is a man"."""
BODY_PARTS = _words(
    "hand hands arm arms finger fingers fingertips face eye eyes lip lips mouth hair head leg legs foot feet neck "
    "shoulder shoulders back body skin nose cheek cheeks chest torso reflection shadow silhouette wrist palm palms"
)
"""Parts of a person: "a woman's hand" shows the woman."""
WORDS_BEFORE_VERBS = _words("i you we they to can will would could should must let may might don't")
"""Words before a verb, not before a noun."""
PHRASE_ENDERS = _words(
    "a an the this that these those his her their its my your our all both each and or but nor so yet while as "
    "because if when whenever where who whom whose which with without within in into inside on onto off of at by for "
    "from to toward towards through throughout over under above below behind beneath beside besides between among "
    "across along around against near next past up down out outside upon about after before during until since than "
    "like via per is are was were be been being has have had does do did can could will would shall should may might "
    "must isn't not never now then just also only still again soon always often alone asleep awake alive here there "
    "today upright outdoors indoors upstairs downstairs aged age wearing seen dressed himself herself he she they it "
    "sat stood wore held spoke ran took came went gave got made said saw kept left lay fell began drew drove ate "
    "drank sang rode threw caught taught thought told knelt leaned slept wept swam flew grew knew put cut read hit "
    "let set shot shown worn known bent lost too quite very already almost half mid pregnant topless barefoot "
    "shirtless"
)
"""Words that follow a noun that ends its phrase; another noun after a person word makes that word an adjective."""
NOUNS_ENDING_IN_S = _words(
    "clothes boots shoes shorts gloves pants socks toys glasses trousers jeans sneakers goggles lens dress series bus "
    "campus canvas compass mattress princess business"
)
"""Nouns that look like verbs of the third person, or plurals that follow a person word used as an adjective."""
