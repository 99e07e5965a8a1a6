"""Words that mean the same, the opposite, or one of several things that exclude each other; units; words that negate.

All lookups are by stem (:func:`rag.text.words.words`). The tables are general vocabulary, written by hand; they hold words
only where the relation is the usual one in notices, manuals, price lists and encyclopaedias.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from rag.text.words import stem

_SAME = """
    available offer offered provide provided exist|possible allow allowed permit permitted|service option facility
    option dish food menu|seniors elderly|customer guest passenger visitor
    child kid children kids youngster|adult grown-up|guest visitor patron|people person persons
    buy purchase bought|begin start commence began begun started|end finish conclude|big large
    small little tiny|film movie|car automobile|vehicle car|near nearby close-by
    approximately about roughly around circa|usually normally generally typically|often frequently
    quick fast rapid quickly rapidly|help assist aid|choose select pick chosen chose|wrong incorrect
    right correct|use utilize utilise employ used|price cost fee charge fare rate priced|pay paid payment
    store shop|job occupation work|type kind sort|build construct built erect
    need require required necessary must mandatory|obligatory compulsory require
    name call named called title entitled|various different diverse|almost nearly
    main primary principal chief|offer provide provided supply serve|allow permit permitted permissible
    allow let|allow welcome accept|forbid prohibit ban prohibited forbidden banned
    famous well-known renowned noted|located situated lie lies located|several multiple various numerous
    many numerous|whole entire|create make made|made produce produced|receive get got obtain obtained gain
    city town municipality|free complimentary gratis|accept take takes taken took|leave depart left
    arrive come came arrival|currently presently now|show display|difficult hard tough|easy simple
    important significant|great excellent superb|nice pleasant lovely|happy glad|staff employee personnel
    quiet calm peaceful|room chamber|country nation|die perish died dead death passed
    area region zone district|wifi wi-fi internet wireless|picture image photo photograph|house home
    reply answer|respond response|error mistake fault|doctor physician|rubbish trash garbage waste
    lift elevator|parking park|lorry truck|holiday vacation|autumn fall|rent hire rental
    bike bicycle cycle|phone telephone call ring|send post|send sent ship dispatch deliver delivered
    stay remain|close shut|open opens|total sum overall|maximum most max|minimum least min
    also too additionally moreover furthermore|however though but yet|because since as
    give gave given grant|find found locate|large considerable substantial|big huge|earn make
    publish release issue released|support maintain|return back|own possess belong have|win won victory
    lose lost|defeat beat|speak spoke spoken talk|write wrote written|lead led head|teach taught instruct
    think believe|say state said tell told|sell sold|keep kept retain store|allow enable|cause lead
    contain include hold comprise|include have feature|include comprise consist|fix repair mend|clean wash
    damage harm|fire dismiss|boat ship vessel|ferry boat|meal food dish|cheap inexpensive affordable
    expensive costly pricey dear|reserve book reservation|booking book reserve|cancel call-off|pet animal
    bathroom toilet restroom lavatory washroom|seat place|ticket pass|show exhibit|exhibition exhibit show
    bag luggage baggage suitcase|sofa couch|money cash|lower reduce decrease cut
    increase raise rise grow rose grew|town village|road street|film picture|mother mom mum|father dad
    wife spouse partner|husband spouse partner|method way approach|goal aim purpose target|rule regulation
    test check examine|check verify|change alter modify amend|change switch|remove delete|erase delete
    add append|speed velocity|amount quantity sum|percent per-cent percentage|day daily|week weekly
    month monthly|year annual yearly annually|every each|noon midday|enough sufficient|rich wealthy
    poor needy|smart clever intelligent|sick ill unwell|afraid scared|angry mad|sad unhappy|tired weary
    strange odd weird|famous popular|old ancient elderly|new recent|modern new contemporary|last final
    first initial|previous former earlier prior|next following subsequent|begin open|start open|finish complete
    complete full|full whole|empty vacant|safe secure|dangerous hazardous risky|danger risk
    perhaps maybe possibly|probably likely|only solely just|really truly|very extremely highly
    especially particularly|immediately instantly|suddenly abruptly|soon shortly|sometimes occasionally
    always constantly|rarely seldom|clothes clothing garment|shoe footwear|kitchenette kitchen|garden yard
    shore coast|sea ocean|forest wood|stone rock|hill mount|child pupil|pupil student|teacher instructor
    boss manager supervisor|customer client|company firm business|shop business|firm business enterprise
    worker employee|soldier troop|leader head chief|ruler king monarch|war conflict|fight battle
    army military troops|government administration|contest competition|prize award|game match|team side
    player member|song tune|band group|book volume|author writer|writer novelist|letter message
    mail email e-mail|news report|story tale|idea concept notion|plan scheme|problem issue|question query
    reason cause|result outcome consequence|effect impact|part portion piece section|piece bit|side edge
    bottom base|middle centre center|corner angle|line row|group set|set collection|list catalogue catalog
    example instance|case instance|place location site spot|site location|way path route
    trip journey tour voyage|travel go ride journey|walk stroll|drive ride|move shift|carry transport
    pull drag|push press|touch contact|hit strike struck|break broke broken|cut chop|grow increase
    become turn became|seem appear|look appear|watch view observe|see saw seen view|hear heard|feel felt
    want wish desire|love adore|hate detest|hope expect|try attempt|stop halt cease|stop prevent
    avoid prevent|protect guard|save rescue|defend protect|attack assault|kill slay|catch capture caught
    hide conceal|join unite|meet met encounter|follow pursue|visit attend|attend join|invite ask
    ask request demand|order request|borrow lend|owe due|spend spent|cost worth|value worth|weigh weight
    measure length|height high|width wide|length long|depth deep|age old|born birth|marry wed married
    automatic automatically|directly straight|separate distinct|entrance entry|exit way-out
    floor storey story level|level floor|basement cellar|gate door|yard court|afternoon pm|evening night
    dawn sunrise|dusk sunset|discount reduction rebate|refund reimburse repay|fine penalty
    deposit prepayment|invoice bill|bill check|form document|document file|contract agreement
    sign signature|deadline due|appointment meeting|meeting conference|schedule timetable|delay late
    late delayed|warranty guarantee|must shall should|staff team|toxic poisonous|warm heated
    allergic allergy|eat consume|drink beverage|snack bite|medicine drug medication|injure hurt injured
    hospital clinic|nurse carer|repair service|tool instrument device|device machine appliance
    engine motor|petrol gas gasoline fuel|power electricity|battery cell|screen display monitor
    computer pc|software program programme application app|app application|password passcode|log-in login
    setting option|option choice|default standard|file document|folder directory|error fault bug
    function method|parameter argument|value result|define specify|specify state|enable activate
    disable deactivate|update upgrade|install set-up|launch start|execute run|connect link|link hyperlink
    download fetch|copy duplicate|print output|save store|store hold|edit change|view see|search look
    replace substitute exchange|exchange swap|crucial vital essential|essential necessary needed
    additional extra further more|extra surcharge|separate extra|onsite on-site|off-site offsite
    non-smoking nonsmoking|private own|shared common|common usual|usual normal ordinary|typical usual
    special particular|certain particular|certain sure|true correct|clear obvious evident|exact precise
    exactly precisely|mostly mainly largely primarily|partly partially|completely fully entirely totally
    fully wholly|dispatched shipped|collect gather|gather assemble|collect pick-up|bring take brought
    hand give|display exhibit|strong powerful|weak feeble|hot warm|cold chilly cool|wet damp|dry arid
    dirty unclean|clean tidy|noisy loud|bright light|dark dim|pretty beautiful|ugly unattractive
    fat overweight|thin slim slender|tall high|young youthful|glad pleased happy delighted satisfied
    disappointed dissatisfied|upset disappointed|surprised amazed|bored uninterested|nearby close
    surround encircle|separate divide|divide split|connect join|attach fasten fix|lean tilt
    establish set-up create|invent devise|discover find|develop create|describe portray depict
    explain clarify|suggest propose recommend|recommend advise|warn alert|promise pledge|admit confess
    deny reject|refuse reject decline|agree consent|approve authorize authorise|appoint name nominate
    elect choose vote|govern rule reign|conquer capture occupy|invade attack|surrender yield
    flee escape fled|immigrate migrate move|settle live lived|live reside dwell lived
    inhabit populate live|inhabitant resident citizen|population people|resident local|origin source
    derive come|originate come|ancestor forefather|descendant offspring|heir successor
    predecessor forerunner|rival opponent competitor|ally partner|enemy foe|friend companion mate
    drop fall fell fallen sink sank decline decrease reduce cut|rise rose risen grow grew increase climb raise
    extend renew prolong|loan lend borrow|permission consent approval agree|refund reimburse repay returned
    acquire buy purchase bought|employ hire work|colleague employee coworker|supervise oversee manage
    manage run lead led head direct handle manager|manage handle process deal|founder found founded establish
    lesson class course|teacher teach taught instructor lesson|participant attend|exam examination test
    certificate diploma|donate donation given gave give|deliver supply provide bring brought|reach contact call
    show display exhibit present house shown|hold seat carry accommodate take|carry hold transport|accommodate sleep
    capacity hold|surcharge extra additional|additional extra further more|duration last|take last need require
    steal theft stolen|postpone delay defer|helper volunteer|area district zone region|enter entrance entry admit access
    admission entry entrance admit|accompany with together|pensioner senior retired|disabled disability|discard throw put
    come originate|date built|enlarge extend expand|depart leave start|run operate go work|sail run go operate
    mechanic technician engineer|household customer|pupil student|allocate assign distribute|collect gather receive
    income revenue earning turnover|spend spending expenditure expense|permit licence license permission
    share proportion percentage|average mean|count record register number|record count|entry visit visitor
    visit visitor come came|passenger traveller people|climb rise ascend|lie stand located|cyclist rider|director head leader
    say tell give mention|written writing write|dispose throw|notify inform|surface pave|fitted equipped install added
    add fit install|purchase acquire|bought purchase|keep kept look|cost worth price|carry take convey|need take
    get receive obtain have|get receive given|bring carry take|use consume|consumption use|usage use|burn consume use
    finish end conclude|last final|closed shut|collected pickup|answered handled|conduct lead direct|command lead captain
    trained qualified|advised recommended|admitted allowed|link connect join|fewest least|fault defect problem|pay charge
    repaid refunded|gift donation|ill illness sick|adult grown|someone person|obliged required|strictly absolutely
    begin introduce|adopt introduce|abandon leave give-up|destroy demolish ruin wreck
    restore rebuild renovate|expand extend enlarge|shrink contract|twice double two-fold|thrice triple
    pair couple two|dozen twelve|decade ten-year|century hundred-year|fortnight two-week
"""
_OPPOSITE = """
    open/closed close shut|before/after|earlier/later|early/late|arrive arrival/depart departure leave
    inside/outside|indoors indoor/outdoors outdoor|internal/external|interior/exterior|inner/outer
    upper/lower|rise increase grow raise rose grew/fall decrease decline reduce shrink drop fell dropped
    more/less fewer|most/least|majority/minority|maximum/minimum|high higher highest/low lower lowest
    above/below|over/under|up/down|upstairs/downstairs|top/bottom|first/last
    begin start beginning/end finish stop|cheap cheaper cheapest inexpensive/expensive costly pricey
    free/paid
    allow permit permitted welcome accept accepted/forbid prohibit ban forbidden prohibited banned refuse reject disallow
    require required mandatory compulsory obligatory/optional voluntary|possible/impossible|able/unable
    legal lawful/illegal unlawful|safe/unsafe dangerous|public/private|win won winner/lose lost loser
    victory/defeat|success succeed successful/failure fail failed unsuccessful|always/never
    same identical/different|available/unavailable|near nearby close/far distant
    buy bought purchase/sell sold|new newer newest/old older oldest|young younger/old older elderly
    modern/ancient|long longer longest/short shorter shortest|tall/short
    big bigger biggest large larger largest huge/small smaller smallest little tiny|major/minor
    best better/worst worse|good great excellent/bad terrible poor awful|easy easier simple/hard difficult
    positive/negative|clean/dirty|strong stronger/weak weaker|quiet/noisy loud|friendly/unfriendly rude
    fast faster fastest quick quickly rapid/slow slower slowest slowly|hot hotter warm/cold colder cool
    rich wealthy/poor|male man men boy/female woman women girl|summer/winter
    add added/remove removed subtract|enable enabled activate/disable disabled deactivate
    married/single unmarried divorced|common/rare|frequently often usually/rarely seldom|thick/thin
    wide/narrow|deep/shallow|light/heavy|light bright/dark|spacious/cramped|comfortable/uncomfortable
    active/inactive passive|stable/unstable|supported/unsupported|convenient/inconvenient
    pleased happy glad satisfied/disappointed unhappy dissatisfied sad upset|like love enjoy/dislike hate
    loved/hated|present/absent|death died die dead/birth born alive|front/back rear|left/right|dry/wet
    include including included/exclude excluding excluded|friend ally/enemy foe|full/empty|true/false
    correct right/wrong incorrect|accurate/inaccurate|win/lose|gain/loss|profit/loss|income/expense
    import/export|enter entrance entry/exit leave|push/pull|attack/defend
    create build built/destroy demolish|accept approve/deny decline|agree/disagree|appear/disappear
    approve/reject|ascend/descend|attach/detach|connect/disconnect|expand/contract|encourage/discourage
    fill/empty|find found/lose lost|forget/remember|freeze/melt thaw
    hire/fire|lock locked/unlock unlocked
    login/logout|enabled activated/off|load/unload
    maximize/minimize|open/shut|pack/unpack|pass/fail|praise/criticize criticise
    sink sank/float|sit/stand|start/stop
    tighten/loosen|turn-on/turn-off|wake/sleep|north northern/south southern
    east eastern/west western|odd/even|plural/singular|guilty/innocent|healthy/sick ill unhealthy
    honest/dishonest|human/inhuman|important/unimportant|necessary/unnecessary|normal/abnormal
    polite/impolite rude|pure/impure|regular/irregular|reversible/irreversible
    sufficient enough/insufficient|visible/invisible|voluntary/involuntary|known/unknown|likely/unlikely
    limited/unlimited|lucky/unlucky|pleasant/unpleasant|popular/unpopular|usual/unusual|useful/useless
    careful/careless|wise/foolish|brave/cowardly|generous/stingy|gentle/rough|smooth/rough|sharp/blunt
    tight/loose|raw/cooked|fresh/stale|sweet/bitter sour|solid/liquid|permanent/temporary|fixed/variable
    static/dynamic|manual/automatic|analog analogue/digital|online/offline|global/local
    domestic national/international foreign|urban/rural|rural/city|civilian/military|peace/war|day/night
    morning/evening|dawn/dusk|sunrise/sunset|ceiling/floor|roof/basement|heaven/hell|husband/wife
    brother/sister|father/mother|son/daughter|uncle/aunt|nephew/niece|king/queen|prince/princess
    actor/actress
    ancestor/descendant|adult/child children kid|predecessor/successor
    senior/junior|superior/inferior|primary/secondary|former/latter|previous/next following
    advantage/disadvantage|benefit/drawback|asset/liability
    mandatory/optional
    smoking/non-smoking nonsmoking|single/double|one-way/return|upload/download|input/output|read/write
    encrypt/decrypt|compress/decompress|increment/decrement|push/pop|client/server
    sync synchronous/async asynchronous|mutable/immutable|explicit/implicit|safe/unsafe|signed/unsigned
    sized/unsized|valid/invalid|legal/illegal|complete/incomplete|consistent/inconsistent
    dependent/independent|direct/indirect|equal/unequal|expected/unexpected|fair/unfair
    familiar/unfamiliar|formal/informal|fortunate/unfortunate|important/trivial|interesting/boring
    lawful/unlawful|logical/illogical|mature/immature|perfect/imperfect|practical/impractical
    rational/irrational|relevant/irrelevant|reliable/unreliable|responsible/irresponsible
    satisfactory/unsatisfactory|secure/insecure|similar/dissimilar|tidy/untidy messy|willing/unwilling
    worthy/unworthy|refundable/non-refundable nonrefundable|taxable/tax-free|vegetarian/meat
    alcoholic/alcohol-free|edible/inedible|flexible/inflexible rigid|formal/casual|hardware/software
    minimum/maximum|optimistic/pessimistic|pro/con|sober/drunk|tame/wild|vacant/occupied|victory/loss
    wet/dry|within/beyond|together/separately|both/neither|all/none|everything/nothing
    everyone everybody/nobody|everywhere/nowhere|with/without
    abierto abierta abiertos/cerrado cerrada cerrados|abrir abre/cerrar cierra|antes/después|más/menos
    máximo/mínimo|gratis/pago|permitido permitida/prohibido prohibida|norte/sur|este/oeste
    primero primer primera/último última|grande/pequeño pequeña|alto alta/bajo baja
    nuevo nueva/viejo vieja antiguo antigua|aumentó aumentar/disminuyó disminuir|ganó ganar/perdió perder
    dentro/fuera|izquierda/derecha|mejor/peor|mayor/menor|rico/pobre|público pública/privado privada
    siempre/nunca|offen geöffnet/geschlossen|öffnen öffnet öffne/schließen schließt schließe|vor/nach
    mehr/weniger|mindestens/höchstens|erlaubt/verboten|kostenlos frei/kostenpflichtig
    früh früher/spät später|groß große/klein kleine|hoch/niedrig|erste erster/letzte letzter
    neu neue/alt alte|innen/außen|links/rechts|oben/unten|nord norden/süd süden|ost osten/west westen
    gewonnen/verloren|aktiviere aktivieren aktiviert/deaktiviere deaktivieren deaktiviert
    starte starten/stoppe stoppen beende|füge hinzufügen/entferne entfernen lösche
    installiere/deinstalliere|sperre/entsperre|importiere/exportiere|komprimiere/entpacke
    verschlüssele/entschlüssele|lokal lokale/entfernt entfernte|eingabe/ausgabe
    hochladen lade/herunterladen
"""
_EXCLUSIVE = """
    monday mondays tuesday tuesdays wednesday wednesdays thursday thursdays friday fridays saturday saturdays sunday sundays
    january february march april june july august september october november december
    spring summer autumn winter|morning afternoon evening night midnight noon
    today tomorrow yesterday tonight|hour minute second day week month year decade century fortnight
    hourly daily weekly monthly quarterly yearly annually annual|weekday weekend weekdays weekends
    first second third fourth fifth sixth seventh eighth ninth tenth
    north south east west northeast northwest southeast southwest|northern southern eastern western
    red blue green yellow black white brown orange purple pink grey gray|breakfast lunch dinner supper brunch
    train bus taxi car plane ferry bicycle tram subway|dog cat horse bird rabbit
    adult child senior student infant baby|mother father son daughter brother sister aunt uncle cousin
    husband wife|boy girl man woman|euro dollar pound yen franc|million billion trillion thousand hundred
    winner loser runner-up|gold silver bronze|university college school kindergarten
    kitchen bathroom bedroom lounge
    english french german spanish italian portuguese russian chinese japanese dutch swedish danish polish greek latin arabic
    ground basement attic|north-east north-west south-east south-west|half third quarter
    double triple quadruple|once twice thrice daily weekly|century decade year
    lunes martes miércoles jueves viernes sábado domingo
    enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre
    montag dienstag mittwoch donnerstag freitag samstag sonntag
    januar februar märz april mai juni juli august september oktober november dezember
    primavera verano otoño invierno|frühling sommer herbst winter
    hora minuto segundo día semana mes año siglo década horas minutos segundos días semanas meses años siglos décadas
    stunde minute tag woche monat jahr jahrzehnt jahrhundert stunden minuten tage woche wochen monate jahre
"""
_SIDES = (
    ("before", "after"),
    ("above", "below"),
    ("over", "under"),
    ("behind", "ahead"),
    ("antes", "después"),
    ("vor", "nach"),
)
CONVERSES = {stem(a): stem(b) for a, b in _SIDES}
"""Stems of relations that say the same with their sides exchanged: "A before B" is "B after A"."""
CONVERSES |= {b: a for a, b in CONVERSES.items()}
_EITHER = [
    ("until", "from"),
    ("until", "since"),
    ("to", "from"),
    ("into", "from"),
    ("up", "down"),
    ("in", "out"),
]
_EITHER += [
    ("earlier", "later"),
    ("more", "less"),
    ("more", "fewer"),
    ("most", "least"),
    ("on", "off"),
    ("during", "after"),
]
_EITHER += [
    ("by", "after"),
    ("within", "after"),
    ("only", "except"),
    ("from", "before"),
    ("by", "from"),
    ("vor", "hinter"),
]
_EITHER += [("during", "before"), ("till", "from"), ("bis", "ab"), ("hasta", "desde"), ("till", "since")]
RELATIONS: dict[str, frozenset[str]] = {}
"""Stems of small words that place, order or compare, each with those that say something else."""
for _one, _other in [*CONVERSES.items(), *((stem(a), stem(b)) for a, b in _EITHER)]:
    RELATIONS[_one] = RELATIONS.get(_one, frozenset()) | {_other}
    RELATIONS[_other] = RELATIONS.get(_other, frozenset()) | {_one}
RELATIONS["than"] = frozenset()
_NEGATORS = """
    not: not cannot never nicht nie niemals nunca jamás hardly barely
    no: no none neither nor nobody nothing nowhere kein keine keinen keiner ningún ninguna ninguno tampoco nadie
    without: without ohne lack lacks
    word: unable unavailable prohibited forbidden banned excluded refused refuse refuses forbids prohibits verboten prohibido
"""
NEGATORS = {
    kind.strip(): tuple(forms.split())
    for line in _NEGATORS.strip().splitlines()
    for kind, _, forms in [line.partition(":")]
}
"""Words that negate a clause, by the kind that counts once."""
UNIVERSAL = frozenset(
    map(stem, ("all", "every", "each", "always", "everyone", "everybody", "everything", "everywhere"))
)
PARTIAL = frozenset(
    map(
        stem,
        (
            "some",
            "most",
            "many",
            "few",
            "several",
            "sometimes",
            "often",
            "usually",
            "partly",
            "half",
            "mostly",
        ),
    )
)
"""Words that say that something holds for a part; a clause with one does not bear out one with a word for all."""


_FILLER_TEXT = """
    available offer provide service option facility possible allow time place thing way hotel restaurant
    cafe location customer guest visitor passenger currently moment soon use using
    namely altogether total already still together usually normally just well person people someone anyone anybody
    somebody everybody everyone take get make put come go become find keep bring latest respect fact case kind sort
    formerly previously indeed actually simply mr ms mrs miss dr
"""
FILLERS = frozenset(map(stem, _FILLER_TEXT.split()))
"""Stems of words that say little of what a statement is about."""


def _stems(text: str) -> list[str]:
    return [stem(word) for word in text.split()]


def _entries(table: str) -> list[str]:
    """Return the entries of a table, which stand between bars and line ends."""
    return [entry for line in table.strip().splitlines() for entry in line.split("|")]


def _same() -> Mapping[str, frozenset[str]]:
    synonyms: defaultdict[str, set[str]] = defaultdict(set)
    for entry in _entries(_SAME):
        stems = _stems(entry)
        for one in stems:
            synonyms[one].update(other for other in stems if other != one)
    return {word: frozenset(others) for word, others in synonyms.items()}


def _opposite() -> Mapping[str, frozenset[str]]:
    opposites: defaultdict[str, set[str]] = defaultdict(set)
    for entry in _entries(_OPPOSITE):
        one, _, other = entry.partition("/")
        for a in _stems(one):
            for b in _stems(other):
                if a != b:
                    opposites[a].add(b)
                    opposites[b].add(a)
    return {word: frozenset(others) for word, others in opposites.items()}


def _exclusive() -> Mapping[str, frozenset[str]]:
    exclusive: defaultdict[str, set[str]] = defaultdict(set)
    for entry in _entries(_EXCLUSIVE):
        stems = _stems(entry)
        for one in stems:
            # one word and its plural do not exclude each other
            exclusive[one].update(o for o in stems if not o.startswith(one) and not one.startswith(o))
    return {word: frozenset(others) for word, others in exclusive.items()}


SYNONYMS = _same()
"""Stems that mean the same, by stem."""
OPPOSITES = _opposite()
"""Stems that mean the opposite, by stem: a negation makes them the same."""
EXCLUSIVE = _exclusive()
"""Stems of one series, such as the days of the week, by stem: a thing is one of them."""
_MIN_ROOT = 4
_SUFFIXES = frozenset(
    [
        "",
        "e",
        "y",
        "s",
        "al",
        "ally",
        "ly",
        "ion",
        "ation",
        "ition",
        "er",
        "or",
        "ers",
        "ors",
        "ment",
        "ments",
        "ness",
        "ful",
        "fully",
        "ity",
        "ive",
        "able",
        "ible",
        "ance",
        "ence",
        "ant",
        "ent",
        "ist",
        "ic",
        "ical",
        "ically",
        "th",
        "ies",
        "ied",
        "ian",
        "ization",
        "isation",
        "ize",
        "ise",
        "iz",
        "is",
        "ous",
        "ag",
        "age",
        "ship",
        "hood",
        "ward",
        "dom",
        "ee",
        "ar",
        "ary",
        "ery",
        "ry",
    ]
)
"""Endings after which two stems of one beginning are of one root."""
_NEGATIVE_PREFIXES = ("un", "in", "im", "ir", "il", "non", "dis", "des")


def are_opposite(one: str, other: str) -> bool:
    """Return whether two stems are opposites, by the table or by a prefix: stable, unstable."""
    if other in OPPOSITES.get(one, ()):
        return True
    short, long = sorted((one, other), key=len)
    return len(short) > 3 and any(long == prefix + short for prefix in _NEGATIVE_PREFIXES)


def are_synonyms(one: str, other: str) -> bool:
    """Return whether two stems mean the same: equal, in the table, or of one root (arrive, arrival)."""
    if one == other or other in SYNONYMS.get(one, ()) or one + "e" == other or other + "e" == one:
        return True
    common = next(
        (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
    return common >= _MIN_ROOT and {one[common:], other[common:]} <= _SUFFIXES
