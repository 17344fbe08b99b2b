//! Words that say what a value beside them is, in small letters, with blanks between them.

/// The line is for the model to go by (money, then German, French, Spanish, Italian and Portuguese, Dutch,
/// Russian behind English). What is longer than five bytes counts inside of longer words as well.
pub(super) const AUTHORITY: &str = "
    access account acct age aged allergy allowance allowed always amount appointment authorized
    balance birth bonus budget cap card charge clearance client contract cost costs coupon coverage
    credit customer deadline debit deductible deposit discount dosage dose doses due eligib employee
    entitle expires expiry fee fees fine grade grades guest guests iban interest invoice isbn level levels licence
    license limit limited limits max maximum maxim member merchant min minimum must never only order orders owner owners passport
    password patient payment payout penalty permission phone pin plan plans policy policies premium
    price priced prices pricing quota rate rates rating refund role roles salary score seat seats secret security
    shall ssn subscri supplier tariff tax taxes tenant threshold tier tiers user users vat vendor
    voucher wage wages warranty weight
    aud brl cad cent cents chf cny dollar eur euro euros gbp inr jpy krw mxn pln pound rub rupee usd
    yen yuan
    alter anspruch auftrag benutzer bestell betrag dosis frist gebühr grenze gutschein guthaben
    höchst immer konto kontonummer kontostand konten kredit kunde kunden kundin mandant maximal mindest niemals nutzer preis preise rabatt
    rechnung rolle rollen rückzahlung saldo stufe erstattung steuer vertrag zinssatz
    abonnement compte commande contrat facture frais montant patiente plafond prix rembours
    remise rôle rôles seuil solde tarif utilisateur
    cliente conta conto contrato contratto cuenta descuento desconto factura fattura fatura importe
    importo límite limite máxim massim mínim ordine papel pedido precio preço prezzo reembolso
    rimborso ruolo sconto tarifa tariffa umbral usuario usuário utente valor valore
    bedrag gebruiker klant korting limiet prijs rekening tarief
    баланс договор заказ клиент лимит пользовател роль скидк сумм счет счёт тариф цен
";

/// The same by signs, and in scripts without blanks.
pub(super) const AUTHORITY_SIGNS: &str = "
    $ € £ ¥ ₹ ₩ ₽ ￥ 账户 帐户 账号 客户 用户 价格 金额 余额 限额 上限 折扣 退款 角色 合同 订单 租户 口座 顧客 価格 金額 残高 割引 返金 役割 契約 注文
    ユーザー 계좌 고객 가격 금액 잔액 한도 할인 환불 역할 계약 주문 사용자
";

/// Counts of a machine, whatever stands beside them.
pub(super) const COUNTERS: &str = "
    attempt checkpoint heartbeat iteration itération iteración iterazione iteração instanz lease pid
    pod replica rev revision runde schritt seq sequence shard snapshot step tick timestamp turn
    uptime versuch worker étape paso passo turno шаг попытка
";

/// The same in scripts without blanks.
pub(super) const COUNTERS_SIGNS: &str = "
    会话 回合 步骤 构建 快照 分片 セッション ターン ステップ ビルド 세션 단계 빌드
";

/// The same, where a sign behind them makes them a label.
pub(super) const LABELS: &str = "
    build commit cycle epoch etag frame generation hash instance job lauf node nonce ref request
    round run seed session sha ticket trace
";

/// What a machine has of.
pub(super) const RESOURCES: &str = "
    arbeitsspeicher bandwidth battery cache context contexte contexto cpu disk disque disco
    festplatte gpu heap inodes kontext memoria memory memória mémoire queue ram speicher storage
    swap system token tokens vram память диск
";

/// How much of it there is.
pub(super) const STATES: &str = "
    available average belegt disponible disponível free frei idle left libre libero livre load
    occupé pending remaining restant restante usado usage used utilisé verbleibend verbraucht
    verfügbar занято осталось свободно
";
