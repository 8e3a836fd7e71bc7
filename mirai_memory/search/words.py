"""Words the analyser treats specially, English and Russian: data only, already folded (lower case, ё written as е)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["BASE_FORMS", "MONTHS", "SPELLED_SIGNS", "STOP_WORDS"]

# "may" is no stop word: it is a month. Words that say what kind of answer is wanted ("many", "kind", "type") are none
# either: dropping them lost recall.
_ENGLISH_STOP_WORDS: Final = """
    a an the this that these those such same own other another some any each every both all no nor not none
    i me my mine myself we us our ours ourselves you your yours yourself yourselves
    he him his himself she her hers herself it its itself they them their theirs themselves
    who whom whose which what when where why how whether
    am is are was were be been being have has had having do does did doing
    can could will would shall should might must ought cannot
    and or but if because as than then so though although while until unless
    of at by for with without about against between into through during before after above below to from up down
    in out on off over under upon within onto
    again further once here there few more most only too very just also even ever yet
    let please yes ok okay
"""

# What an apostrophe leaves behind: "don't" is read as "don" and "t", "Caroline's" as "caroline" and "s". Then the
# same forms as people type them without the apostrophe. "won't" is not here: its "won" is a form of "win".
_ENGLISH_PIECES: Final = """
    s t d m ll re ve don doesn didn isn aren wasn weren hasn haven hadn couldn wouldn shouldn mightn mustn needn
    ain shan dont doesnt didnt isnt arent wasnt werent hasnt havent hadnt couldnt wouldnt shouldnt
    cant wont im ive youre youve theyre thats whats theres
"""

# Every case of a pronoun is listed: the stemmer does not join them, and unlisted ones would count as rare words.
_RUSSIAN_STOP_WORDS: Final = """
    я меня мне мной мною ты тебя тебе тобой тобою он его него ему нему им ним нем она ее нее ей ней ею нею
    оно мы нас нам нами вы вас вам вами они их них ими ними себя себе собой собою
    мой моя мое мои моего моей моему моим моем мою моих моими твой твоя твое твои твоего твоей твоему твоим твоем
    твою твоих твоими наш наша наше наши нашего нашей нашему нашим нашем нашу наших нашими
    ваш ваша ваше ваши вашего вашей вашему вашим вашем вашу ваших вашими
    свой своя свое свои своего своей своему своим своем свою своих своими
    этот эта это эти этого этой этому этим этом эту этих этими тот та то те того той тому тем том ту тех теми
    такой такая такое такие такого такому таким таком такую таких такими сам сама само сами самого самой самому
    весь вся все всего всей всему всем всю всех всеми
    кто кого кому кем ком что чего чему чем какой какая какое какие какого какому каким каком какую каких какими
    который которая которое которые которого которой которому которым котором которую которых которыми
    чей чья чье чьи чьего чьей чьему чьим чьем чью чьих чьими
    когда где куда откуда почему зачем отчего как сколько ли разве неужели
    быть был была было были буду будешь будет будем будете будут будучи есть суть бы б
    в во на за по под подо над надо из изо от ото до о об обо у к ко с со без для при про через между перед после
    и а но да или либо ни не нет если чтобы чтоб потому поэтому так также тоже же ж ведь вот вон ну уж уже еще
    лишь только даже там тут здесь туда сюда тогда теперь потом опять снова очень более менее самый
    бывает можно нужно пожалуйста нибудь кое ка
"""

# They carry no meaning for a search and would make up most of every text's terms.
STOP_WORDS: Final[frozenset[str]] = frozenset(f"{_ENGLISH_STOP_WORDS} {_ENGLISH_PIECES} {_RUSSIAN_STOP_WORDS}".split())

# One line each: the base form, then the forms that Snowball does not bring to the same stem. Left out are forms that
# are as often another word: found, left, saw, felt, fell, lay, bit, led, lives, leaves, wound, ground, rose, spoke.
_BASE_FORM_GROUPS: Final = """
    arise arose arisen
    awake awoke awoken
    beat beaten
    become became
    begin began begun
    bend bent
    bite bitten
    bleed bled
    blow blew blown
    break broke broken
    breed bred
    bring brought
    build built
    burn burnt
    buy bought
    catch caught
    choose chose chosen
    cling clung
    come came
    creep crept
    deal dealt
    dig dug
    draw drew drawn
    dream dreamt
    drink drank drunk
    drive drove driven
    eat ate eaten
    feed fed
    fight fought
    flee fled
    fly flew flown
    forbid forbade forbidden
    forget forgot forgotten
    forgive forgave forgiven
    freeze froze frozen
    get got gotten
    give gave given
    go went gone goes
    grow grew grown
    hang hung
    hear heard
    hide hid hidden
    hold held
    keep kept
    kneel knelt
    know knew known
    lean leant
    learn learnt
    leap leapt
    lend lent
    light lit
    lose lost
    make made
    mean meant
    meet met
    mistake mistook mistaken
    overcome overcame
    oversee oversaw overseen
    pay paid
    prove proven
    ride rode ridden
    ring rang rung
    rise risen
    run ran
    say said
    see seen
    seek sought
    sell sold
    send sent
    sew sewn
    shake shook shaken
    shine shone
    show shown
    shrink shrank shrunk
    sing sang sung
    sink sank sunk
    sit sat
    sleep slept
    slide slid
    sneak snuck
    speak spoken
    speed sped
    spell spelt
    spend spent
    spin spun
    spring sprang sprung
    stand stood
    steal stole stolen
    stick stuck
    sting stung
    strike struck stricken
    strive strove striven
    swear swore sworn
    sweep swept
    swell swollen
    swim swam swum
    swing swung
    take took taken
    teach taught
    tear tore torn
    tell told
    think thought
    throw threw thrown
    understand understood
    undertake undertook undertaken
    undo undid undone
    wake woke woken
    wear wore worn
    weave wove woven
    weep wept
    win won
    withdraw withdrew withdrawn
    write wrote written

    analysis analyses
    calf calves
    child children
    crisis crises
    criterion criteria
    diagnosis diagnoses
    elf elves
    foot feet
    goose geese
    half halves
    hoof hooves
    hypothesis hypotheses
    knife knives
    loaf loaves
    man men
    mouse mice
    ox oxen
    person people
    phenomenon phenomena
    policeman policemen
    fireman firemen
    scarf scarves
    shelf shelves
    thesis theses
    thief thieves
    tooth teeth
    wife wives
    wolf wolves
    woman women
    grandchild grandchildren

    bad worse worst
    good better best
    far farther farthest

    january jan
    february feb
    april apr
    august aug
    september sep sept
    october oct
    november nov
    december dec
    январь янв
    февраль фев февр
    апрель апр
    август авг
    сентябрь сент
    октябрь окт
    ноябрь нояб
    декабрь дек
"""

# Snowball strips endings only, so "went" and "go" would stay strangers; joined, about a point of recall is won.
BASE_FORMS: Final[Mapping[str, str]] = MappingProxyType(
    {form: group.split()[0] for group in _BASE_FORM_GROUPS.splitlines() for form in group.split()[1:]}
)

# A message's date is indexed in words, so that "8 May 2023" and "8 мая 2023" find it. The Russian names are in the
# nominative; the stemmer joins the cases.
MONTHS: Final[Mapping[int, tuple[str, str]]] = MappingProxyType(
    {
        1: ("january", "январь"),
        2: ("february", "февраль"),
        3: ("march", "март"),
        4: ("april", "апрель"),
        5: ("may", "май"),
        6: ("june", "июнь"),
        7: ("july", "июль"),
        8: ("august", "август"),
        9: ("september", "сентябрь"),
        10: ("october", "октябрь"),
        11: ("november", "ноябрь"),
        12: ("december", "декабрь"),
    }
)

# Names made of signs, which would be lost with the punctuation; "dotnet" and "csharp" are also how people spell them.
SPELLED_SIGNS: Final[Mapping[str, str]] = MappingProxyType(
    {"c++": "cplusplus", "g++": "gplusplus", "c#": "csharp", "f#": "fsharp", ".net": "dotnet"}
)
