"""Made-up chat messages, the same ones in every run: English and Russian, about 20 words, frequencies after Zipf."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import accumulate, islice, product

# The commonest words carry meaning, as "coffee" or "работа" do in real chats; the analyser drops none of them.
_ENGLISH = (
    "coffee work project garden music train meeting doctor recipe kitchen holiday weather budget report server python "
    "sister brother mountain river museum concert guitar painting school teacher student ticket airport hotel beach "
    "camera picture letter market bread cheese apple dinner breakfast bicycle football swimming running yoga sleep "
    "dream window table chair sofa lamp phone laptop keyboard screen battery winter summer spring autumn birthday "
    "present wedding parent child puppy kitten forest bridge castle village station library novel poem movie theatre"
)
_RUSSIAN = (
    "работа кофе проект сад музыка поезд встреча врач рецепт кухня отпуск погода бюджет отчет сервер программа сестра "
    "брат гора река музей концерт гитара картина школа учитель студент билет аэропорт гостиница пляж камера фотография "
    "письмо рынок хлеб сыр яблоко ужин завтрак велосипед футбол плавание бег сон мечта окно стол стул диван лампа "
    "телефон ноутбук клавиатура экран батарея зима лето весна осень день подарок свадьба родители ребенок щенок котенок"
)
_ENGLISH_FILLERS = "the a and to of in it is that for on with was at my we have but this they"
_RUSSIAN_FILLERS = "и в на не что с а как это я но мы по к у за из от был для"
_ENGLISH_PARTS = "ba ker lin mo dan ver tos pel gra nu fi sho wen tra cor lum bis yar hap ost"
_RUSSIAN_PARTS = "ба кер лин мо дан вер тос пел гра ну фи шо вен тра кор лум бис яр хап ост"
_VOCABULARY = 15_000  # of each language
_FILLERS = 0.4  # share of words without meaning of their own


class _Language:
    def __init__(self, common: str, fillers: str, parts: str) -> None:
        rare = ("".join(reversed(made)) for made in product(parts.split(), repeat=4))
        words = common.split()
        self.words = words + list(islice(rare, _VOCABULARY - len(words)))
        self.weights = list(accumulate(1 / rank for rank in range(2, len(self.words) + 2)))
        self.fillers = fillers.split()

    def meaningful(self, chance: random.Random, count: int) -> list[str]:
        return chance.choices(self.words, cum_weights=self.weights, k=count)

    def sentence(self, chance: random.Random, count: int) -> str:
        words = self.meaningful(chance, count)
        return " ".join(chance.choice(self.fillers) if chance.random() < _FILLERS else word for word in words)


class Corpus:
    """Messages and questions from one seeded source of chance."""

    def __init__(self, seed: int = 20_26) -> None:
        self._chance = random.Random(seed)
        self._languages = (
            _Language(_ENGLISH, _ENGLISH_FILLERS, _ENGLISH_PARTS),
            _Language(_RUSSIAN, _RUSSIAN_FILLERS, _RUSSIAN_PARTS),
        )

    def message(self) -> str:
        """10 to 30 words of one language, or, one time in ten, of both."""
        count = self._chance.randint(10, 30)
        if self._chance.random() < 0.1:
            halves = (language.sentence(self._chance, count // 2) for language in self._languages)
            return ". ".join(halves).capitalize() + "."
        return self._chance.choice(self._languages).sentence(self._chance, count).capitalize() + "."

    def messages(self, count: int, *, distinct: int = 20_000) -> Iterator[str]:
        """``count`` messages; beyond ``distinct`` they repeat, since making them up would cost more than storing."""
        made = [self.message() for _ in range(min(count, distinct))]
        return (made[number % len(made)] for number in range(count))

    def question(self) -> str:
        """3 to 6 words with meaning, as frequent as in the messages."""
        return " ".join(self._chance.choice(self._languages).meaningful(self._chance, self._chance.randint(3, 6)))

    def common_question(self) -> str:
        """The five commonest words of all."""
        english, russian = self._languages
        return " ".join((*english.words[:3], *russian.words[:2]))

    def lengths(self, total: int, *, least: int, most: int) -> list[int]:
        """Lengths of sessions that make up ``total``: many short ones, few long ones."""
        lengths: list[int] = []
        while (left := total - sum(lengths)) > 0:
            lengths.append(min(left, int(least * (most / least) ** self._chance.random())))
        return lengths

    def pick(self, values: list[str]) -> str:
        return self._chance.choice(values)
